"""All central components in one process."""
