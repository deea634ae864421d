"""TYPED CLIENTS of the components' HTTP APIs."""
