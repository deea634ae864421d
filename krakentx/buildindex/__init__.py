"""Tag -> digest."""
