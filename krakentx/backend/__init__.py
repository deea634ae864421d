"""REMOTE STORES: where blobs and tags last."""
