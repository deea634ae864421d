"""When a torrent tells the tracker of itself. One timer per torrent: many torrents do not slow each other down."""

from __future__ import annotations

from random import Random

from krakentx.swarm.config import AnnounceConfig

_JITTER = 0.1


class AnnounceTimer:
    """Decides when the next announce is due; hosts that start together drift apart by a tenth of the interval."""

    def __init__(self, now: float, rng: Random) -> None:
        self._rng = rng
        self._interval_s: float | None = None  # as the tracker said last
        self._early_s: float | None = None  # pause of the next early announce
        self._hurried = False  # the next announce is an early one
        self._asked_at: float | None = None
        self._last_at = now
        self._next_at = now

    def due(self, config: AnnounceConfig) -> float:
        """When to announce next; while an answer is awaited, when to stop waiting."""
        return self._next_at if self._asked_at is None else self._asked_at + config.answer_timeout_s

    def take(self, now: float, config: AnnounceConfig, ahead_s: float = 0.0) -> bool:
        """Whether to announce at this moment, or within `ahead_s`; counts it as done."""
        if self._asked_at is not None and now >= self._asked_at + config.answer_timeout_s:
            self.failed(now, config)
        if self._asked_at is not None or now < self._next_at - ahead_s:
            return False
        self._asked_at = self._last_at = now
        self._next_at = min(self._next_at, now)
        self._hurried = False
        return True

    def answered(self, interval_s: float, fresh: bool, complete: bool, now: float, config: AnnounceConfig) -> None:
        """The tracker answered.

        Args:
            interval_s: what it asked for; 0 or less means that it does not care.
            fresh: it named peers that we did not know.
            complete: we seed: once in a long while is enough to stay in its memory.
        """
        self._asked_at = None
        self._interval_s = min(interval_s, config.max_interval_s) if interval_s > 0 else None
        if fresh:
            self._early_s = None
        if self._next_at > self._last_at:  # `at_once` came meanwhile
            return
        pause = config.seeder_interval_s if complete else self._interval(config)
        self._next_at = now + self._jitter(pause)

    def failed(self, now: float, config: AnnounceConfig) -> None:
        """No answer: try again, less and less often."""
        self._asked_at = None
        self._hurried = True
        self._next_at = now + self._jitter(self._back_off(config))

    def hurry(self, config: AnnounceConfig) -> None:
        """We have too few peers, or they give nothing: do not wait for the whole interval."""
        if self._asked_at is None and not self._hurried:
            early = self._last_at + self._jitter(self._early(config))
            if early < self._next_at:
                self._hurried = True
                self._next_at = early
                self._back_off(config)

    def at_once(self, now: float) -> None:
        """There is news to tell (we are complete): announce now, or as soon as the present answer is there."""
        self._next_at = now if self._asked_at is None else now + 1e-3

    def _interval(self, config: AnnounceConfig) -> float:
        return self._interval_s or config.default_interval_s

    def _back_off(self, config: AnnounceConfig) -> float:
        """The present early pause; the next one is twice as long, up to the interval."""
        pause = self._early(config)
        self._early_s = 2 * pause
        return pause

    def _early(self, config: AnnounceConfig) -> float:
        return min(self._early_s or config.early_interval_s, self._interval(config))

    def _jitter(self, seconds: float) -> float:
        return seconds * (1 + _JITTER * (2 * self._rng.random() - 1))
