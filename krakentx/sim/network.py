"""The network of a world in numbers."""

from __future__ import annotations

from attrs import frozen


@frozen
class Network:
    """Rates in bytes per second, times in seconds."""

    rate: float = 100e6  # of every card, each way
    latency_s: float = 0.00025  # one way
    accept_s: float = 0.001  # of a dial, beside the latency
    tracker_delay_s: float = 0.005  # mean; half as much to half as much again
    trackers: int = 1
    announce_interval_s: float = 3.0
    fetches: int = 8  # by HTTP, that an origin serves at once
    fetch_wait_s: float = 2.5  # and how long others wait in line there, until they are sent away
    hash_rate: float = 0.0  # of the sha256 of one blob; 0 = no time at all
