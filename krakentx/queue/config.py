"""The block of a queue in the configuration (`writeback`, `tag_replication`)."""

from __future__ import annotations

from attrs import frozen

from krakentx.config.fields import duration, named


@frozen
class QueueConfig:
    """How tasks are tried."""

    workers: int = named("num_incoming_workers", 4)
    """Tasks under way at one time."""
    retry_interval_s: float = duration("2s", key="retry_interval")
    """Pause after the first failure; it doubles with each further one."""
    max_retry_interval_s: float = duration("5m", key="max_retry_interval")
    deadline_s: float = duration("30m", key="deadline")
    """A task that takes longer is stopped and counts as failed."""
    limit: int = 100_000
    """Tasks that may wait; further ones are refused."""

    UNUSED = frozenset(
        {
            *("incoming_buffer", "retry_buffer", "num_retry_workers", "max_task_throughput"),
            *("poll_retries_interval", "sync_retry_backoff", "workqueue_metrics_emit_interval"),
        }
    )
