"""`focus-backend status` and `stop`: a server as its clients see it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from focus_backend.errors import ConfigError, ServerError
from focus_backend.serving.client import Client
from focus_backend.serving.credentials import find_credentials
from focus_backend.serving.ready import ReadyFile, live_servers, read_ready
from focus_backend.serving.session import one_line
from focus_backend.serving.wire import StatusReport, Welcome

_LOOK_EVERY = 0.05
# The server's own grace time is not known here; with what it needs to end its workers this is more than enough.
_LONGEST_GRACE = 600.0
_SECONDS_TO_END = 15.0


def show_status(server: str, key: Path | None, as_json: bool, prometheus: bool) -> None:
    """Print how a server is.

    Raises:
        ConfigError: both forms are asked for.
        ServerError: there is no such server, or it does not let us in.
    """
    if as_json and prometheus:
        raise ConfigError("--json and --prometheus are two forms of the same", "give one of them")
    with Client.connect(server, key) as client:
        welcome, report = client.hello(), client.status(prometheus)
    if prometheus:
        print(report.prometheus, end="" if report.prometheus.endswith("\n") else "\n")
        return
    if as_json:
        print(json.dumps({"server": dataclasses.asdict(welcome), "status": dataclasses.asdict(report)}))
        return
    lines = list(_lines(welcome, report))
    width = max(len(name) for name, _ in lines)
    print("\n".join(f"{name:{width}}  {one_line(value)}" for name, value in lines))


def stop_server(server: str, grace: float | None) -> None:
    """Ask a server of this user to end, and wait until it has.

    Args:
        server: as for `find_credentials`.
        grace: seconds that running work may go on; None for the server's own.

    Raises:
        ServerError: there is no such server, it is somebody else's, or it does not end.
    """
    credentials = find_credentials(server)
    process = _process_at(server, credentials.address)
    with Client(credentials) as client:
        client.shutdown(grace)
    end = time.monotonic() + (_LONGEST_GRACE if grace is None else grace) + _SECONDS_TO_END
    while process is not None and process.is_live:
        if time.monotonic() > end:
            raise ServerError(f"the server, process {process.pid}, has not ended yet", "look at its log")
        time.sleep(_LOOK_EVERY)
    print("stopped")


def _process_at(server: str, address: str) -> ReadyFile | None:
    """The server's process; None where it cannot be known."""
    known = [ready for _, ready in live_servers()]
    # A key file tells no process; the server itself says that only its owner may end it.
    with contextlib.suppress(ServerError):
        known.append(read_ready(Path(server)))
    return next((ready for ready in known if ready.address == address), None)


def _lines(welcome: Welcome, report: StatusReport) -> Iterator[tuple[str, str]]:
    models = ", ".join(model.name for model in welcome.models) or "none yet"
    yield "server", f"{welcome.software}, up {_duration(report.uptime_seconds)}"
    yield "model", f"{models}; methods {', '.join(welcome.methods) or 'not known yet'}; on {welcome.device or 'a device not known yet'}"
    yield "workers", f"{welcome.workers_ready} of {welcome.workers} ready, {report.worker_restarts} replaced so far"
    yield "requests", f"{report.queued} waiting, {report.running} running, of {report.clients} client{'' if report.clients == 1 else 's'}"
    failed = ", ".join(f"{count} {code}" for code, count in sorted(report.failed.items()))
    yield "answered", f"{report.answered}, {report.requests_per_second:.2f} a second in the last minute"
    yield "failed", f"{sum(report.failed.values())}" + (f" ({failed})" if failed else "")
    yield "latency", _percentiles(report.latency_seconds)
    yield "work", _percentiles(report.work_seconds)
    yield "memory", f"{_megabytes(report.memory_bytes)}, {report.handles} handles"
    for number, worker in enumerate(report.workers, start=1):
        process = f", process {worker.pid}" if worker.pid else ""
        yield f"worker {number}", f"{worker.state}, {worker.requests} answered, {_megabytes(worker.memory_bytes)}{process}"


def _percentiles(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items()) or "nothing yet"


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.0f} MB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
