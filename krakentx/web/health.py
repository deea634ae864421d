"""`/health` and `/readiness`: is this process alive, and can it do its job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.logger import Logger

from krakentx.core.errors import KrakenError
from krakentx.web.replies import reply_text

log = Logger()

Check = Callable[[], Awaitable[None]]
"""Raises a KrakenError when its part does not work."""


def add_health(
    app: Klein,
    *,
    reactor: Any,
    alive: Check | None = None,
    ready: Mapping[str, Check] | None = None,
    not_ready: str = "not ready to serve traffic",
    end: str = "\n",
    timeout_s: float = 5.0,
) -> None:
    """Serve `/health` and, when there is something to check, `/readiness`.

    Args:
        reactor: IReactorTime.
        alive: what `/health` asks; a failure is 500 with its text.
        ready: what `/readiness` asks, all at once, by name; failures are 503 with all texts, in the order given.
        not_ready: begins the text of that 503.
        end: follows `OK`; the agent of the reference sends none.
        timeout_s: for each check.
    """

    async def problem(name: str, check: Check) -> str | None:
        try:
            await Deferred.fromCoroutine(_run(check)).addTimeout(timeout_s, reactor)
        except TimeoutError:
            return f"{name}: no answer within {timeout_s:g} s"
        except KrakenError as error:
            text = str(error)
            return text if text.startswith(f"{name} ") else f"{name}: {text}"
        except Exception:  # a monitor must get an answer, whatever broke
            log.failure("check of {name} failed", name=name)
            return f"{name}: internal error"
        return None

    @app.route("/health", methods=["GET"])
    async def health(*args: Any) -> bytes:
        found = await problem("health", alive) if alive else None
        return reply_text(args[-1], found or f"OK{end}", 500 if found else 200)

    if ready is None:
        return

    @app.route("/readiness", methods=["GET"])
    async def readiness(*args: Any) -> bytes:
        checks = [Deferred.fromCoroutine(problem(name, check)) for name, check in ready.items()]
        found = [text for text in await gatherResults(checks) if text]
        text = f"{not_ready}: " + "\n".join(found) if found else f"OK{end}"
        return reply_text(args[-1], text, 503 if found else 200)


async def _run(check: Check) -> None:
    await check()
