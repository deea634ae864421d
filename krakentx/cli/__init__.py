"""The `krakentx` command."""
