"""DISK: content-addressed blobs, partial blobs, uploads, eviction."""
