"""YAML -> frozen attrs: extends, ${NAME:-default}, sizes and durations."""
