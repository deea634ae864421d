"""HTTP PLUMBING shared by all endpoints."""
