"""VALUES: digests, metainfo, bitfields, peers, names, errors. Standard library and attrs only."""
