"""A file server that stands in for real storage."""
