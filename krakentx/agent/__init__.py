"""The registry on every host, a peer of the swarm."""
