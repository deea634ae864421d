"""KrakenTX: a peer-to-peer Docker/OCI registry on Twisted."""

__version__ = "0.1.0"
