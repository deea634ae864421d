"""SOCKETS: the peer wire on Twisted, and the Scheduler that executes the Engine's effects."""
