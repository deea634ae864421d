"""BYTES <-> EVENTS: the peer wire without sockets and without a clock."""
