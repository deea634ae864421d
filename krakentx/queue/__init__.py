"""PERSISTED RETRY: tasks that survive a restart."""
