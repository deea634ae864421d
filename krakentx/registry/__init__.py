"""DISTRIBUTION API v2, one Klein app over IBlobs and ITags."""
