"""The registry that takes pushes."""
