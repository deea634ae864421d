"""A MODEL: the Engine of `krakentx.swarm` over a modelled network."""
