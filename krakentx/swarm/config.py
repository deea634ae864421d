"""The `scheduler` section of an agent's or origin's YAML: the reference's keys, and ours where we do more.

Defaults are ours where the reference's are known to be poor (docs/decisions/0002-engine.md says why).
"""

from __future__ import annotations

from typing import Literal

from attrs import Factory, frozen

from krakentx.config.fields import duration, size
from krakentx.core.errors import InvalidInput


@frozen
class ConnStateConfig:
    """`connstate`: how many connections a torrent may have, and how long a peer is left alone."""

    UNUSED = frozenset({"max_mutual_conn"})

    max_open_conn: int = 32
    """Connections of one torrent, both directions together."""
    max_dialled_conn: int = 0
    """How many of them an unfinished torrent dials at first; 0 = a quarter. The rest is kept for incoming ones."""
    max_total_conn: int = 2000
    """Connections of the whole process."""
    max_candidates: int = 200
    """Peers of one torrent that are remembered for a later dial."""
    dial_timeout_s: float = duration("3s", key="dial_timeout")
    disable_blacklist: bool = False
    blacklist_duration_s: float = duration("30s", key="blacklist_duration")
    """First ban for corrupt data or a broken protocol; doubles with each further one."""
    max_blacklist_duration_s: float = duration("1h", key="max_blacklist_duration")
    refusal_pause_s: float = duration("2s", key="refusal_pause")
    """A peer that hung up without an answer (at capacity) or closed cleanly is not dialled for so long."""
    dial_failure_pause_s: float = duration("5s", key="dial_failure_pause")
    """A peer that could not be reached is not dialled for so long; doubles up to one minute."""
    useless_after_s: float = duration("3s", key="useless_after")
    """A connection that brought and took nothing for so long gives way to another when there is no room."""

    @property
    def wanted_conn(self) -> int:
        """Connections that an unfinished torrent should have after a moment, whoever dialled them."""
        return min(2 * self.dialled_limit, self.max_open_conn)

    @property
    def dialled_limit(self) -> int:
        """`max_dialled_conn` with its default filled in; at least one."""
        return max(1, self.max_dialled_conn or self.max_open_conn // 4)


@frozen
class BandwidthConfig:
    """`conn.bandwidth`: limits on piece bytes of the whole process; control messages and HTTP are not counted."""

    UNUSED = frozenset({"token_size"})

    enable: bool = False
    egress_bits_per_sec: int = 200 * 8 * 2**20
    ingress_bits_per_sec: int = 300 * 8 * 2**20

    def __attrs_post_init__(self) -> None:
        """Raises InvalidInput."""
        for key in ("egress_bits_per_sec", "ingress_bits_per_sec"):
            if self.enable and getattr(self, key) <= 0:
                raise InvalidInput("bandwidth", f"{key} must be more than 0; for no limit at all: enable: false")

    @property
    def egress_bytes_s(self) -> float | None:
        """Bytes per second; None = no limit."""
        return self.egress_bits_per_sec / 8 if self.enable else None

    @property
    def ingress_bytes_s(self) -> float | None:
        """Bytes per second; None = no limit."""
        return self.ingress_bits_per_sec / 8 if self.enable else None


@frozen
class ConnConfig:
    """`conn`: one connection."""

    UNUSED = frozenset({"receiver_buffer_size"})

    handshake_timeout_s: float = duration("5s", key="handshake_timeout")
    """For each of: dial answered to handshake, accepted socket to handshake."""
    sender_buffer_size: int = 10000
    """Messages that may wait in one connection; a peer that does not read them is closed."""
    max_pending_handshakes: int = 256
    """Accepted sockets of those who have not greeted yet, or were sent away and linger; more are closed at once."""
    bandwidth: BandwidthConfig = Factory(BandwidthConfig)


@frozen
class DispatchConfig:
    """`dispatch`: which piece, of whom, how many at a time."""

    piece_request_policy: Literal["rarest_first", "default"] = "rarest_first"
    """`default` is the reference's word for a random choice."""
    pipeline_limit: int = 2
    """Requests under way on one connection."""
    origin_pipeline_limit: int = 2
    """The same towards an origin."""
    piece_request_min_timeout_s: float = duration("4s", key="piece_request_min_timeout")
    piece_request_timeout_per_mb_s: float = duration("1s", key="piece_request_timeout_per_mb")
    """A request unanswered for the greater of both goes to another peer."""
    stall_timeout_s: float = duration("2s", key="stall_timeout")
    """A piece that has begun and brings no byte for so long is given up, with its connection."""
    disable_endgame: bool = False
    endgame_threshold: int = 3
    """With at most so many pieces missing, a request that waits may be doubled (never tripled)."""
    endgame_patience_s: float = duration("200ms", key="endgame_patience")
    """How long a request waits before it is doubled."""
    move_requests: bool = True
    """Move a queued request from a busy peer of ours to one that has nothing to do for us."""
    move_after_s: float = duration("50ms", key="move_after")
    """A request younger than that stays where it is: it may have begun, and then it would come twice."""
    spare_origins: bool = True
    """While agents deliver, ask an origin only for what no agent around us has."""
    reader_window: int = 4
    """Missing pieces in front of a streaming reader that are asked for before all others."""


@frozen
class UploadConfig:
    """`upload`: few pieces at a time, yet never idle."""

    slots: int = 3
    """Pieces that leave at once; more while the line has room for them."""
    max_slots: int = 20
    """Pieces that leave at once at the very most, those that stand still included."""
    max_quick_slots: int = 32
    """The same while pieces take less than a second, as long as nobody is given a blob that is all here."""
    max_queued: int = 64
    """Requests that one connection may have waiting here; more are refused."""


@frozen
class AnnounceConfig:
    """`announce`: when a torrent tells the tracker of itself."""

    default_interval_s: float = duration("5s", key="default_interval")
    """Until the tracker names one, and when it names none."""
    max_interval_s: float = duration("1m", key="max_interval")
    seeder_interval_s: float = duration("5m", key="seeder_interval")
    early_interval_s: float = duration("500ms", key="early_interval")
    """First pause of an unfinished torrent with too few peers, or after an error; doubles up to the interval."""
    answer_timeout_s: float = duration("15s", key="answer_timeout")
    """An announce unanswered for so long counts as failed."""


@frozen
class FallbackConfig:
    """`fallback`: single pieces by HTTP when the swarm gives nothing."""

    after_s: float = duration("1500ms", key="after")
    """How long the swarm may give nothing."""
    stall_timeout_s: float = duration("5s", key="stall_timeout")
    parallel: int = 2
    """Fetches under way for one torrent."""
    first_batch_bytes: int = size("4MB", key="first_batch")
    max_batch_bytes: int = size("64MB", key="max_batch")
    batch_time_s: float = duration("1s", key="batch_time")
    """Batches grow while they take less than half of it and shrink when they take more than twice."""
    retry_s: float = duration("1s", key="retry")
    max_retry_s: float = duration("10s", key="max_retry")


@frozen
class SwarmConfig:
    """The whole section; defaults only for a key that is absent."""

    UNUSED = frozenset({"preemption_interval", "emit_stats_interval", "log", "torrentlog"})

    seeder_tti_s: float = duration("5m", key="seeder_tti")
    """A complete torrent that nobody asked anything of for so long is put away."""
    leecher_tti_s: float = duration("5m", key="leecher_tti")
    """A download without a new piece for so long fails; what is on disk stays."""
    conn_tti_s: float = duration("30s", key="conn_tti")
    """A connection without any message for so long is closed."""
    conn_ttl_s: float = duration("1h", key="conn_ttl")
    """A connection of that age is closed as soon as it is idle."""
    disable_preemption: bool = False
    """Turn the four limits above off."""
    probe_timeout_s: float = duration("3s", key="probe_timeout")
    max_restarts: int = 2
    """How often a blob that does not hash to its name is fetched again before the download fails."""
    connstate: ConnStateConfig = Factory(ConnStateConfig)
    conn: ConnConfig = Factory(ConnConfig)
    dispatch: DispatchConfig = Factory(DispatchConfig)
    upload: UploadConfig = Factory(UploadConfig)
    announce: AnnounceConfig = Factory(AnnounceConfig)
    fallback: FallbackConfig = Factory(FallbackConfig)

    def piece_timeout_s(self, piece_length: int) -> float:
        """How long a request for a piece of so many bytes may go unanswered."""
        per_size = self.dispatch.piece_request_timeout_per_mb_s * piece_length / 2**20
        return max(self.dispatch.piece_request_min_timeout_s, per_size)
