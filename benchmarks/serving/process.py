"""A server for a benchmark: a real `focus-backend serve` process of its own, with its files in a temporary folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from focus_backend.errors import FocusError
from focus_backend.serving.client import Client
from focus_backend.serving.credentials import Credentials, find_credentials
from focus_backend.serving.wire import StatusReport, Welcome

# Loading everything on a busy machine, its very first start included.
START_SECONDS = 180.0
ROOT = Path(__file__).resolve().parents[2]
# Serves a pipeline that the command cannot name: trials of these benchmarks and a photo that makes a pipeline raise.
_SERVE_WITH_PIPELINE = """
import sys
from focus_backend.serving.config import ServerConfig
from focus_backend.serving.server import serve
sys.exit(serve(ServerConfig.model_validate_json(sys.argv[1]), pipeline=sys.argv[2], announce=print))
"""


@dataclass(frozen=True)
class ServerOptions:
    """Which server a benchmark talks to.

    Attributes:
        given: a running one, as `Client.connect` takes it; "" to start one.
        workers: how many.
        method, weights: as `focus-backend serve` takes them; "" for its own choice.
        pipeline: "module:function" that workers load instead of the real one; "" for the real one.
        bind: addresses; empty for a free port of the loopback interface.
        environment: over this process's.
        limits: over the published ones, by name.
    """

    given: str = ""
    workers: int = 1
    method: str = ""
    weights: str = ""
    pipeline: str = ""
    bind: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)

    def configuration(self, folder: Path) -> dict:
        """As `ServerConfig` reads it."""
        pipeline = {name: value for name, value in (("method", self.method), ("weights", self.weights)) if value}
        return {
            "ready_file": str(folder / "ready.json"),
            "keys": str(folder / "keys"),
            "workers": self.workers,
            "log": "json",
            "pipeline": pipeline,
            **({"bind": list(self.bind)} if self.bind else {}),
            **({"limits": dict(self.limits)} if self.limits else {}),
        }


class ServerProcess:
    """A server, started here or given.

    Args:
        options: which.
        folder: for its ready file, keys and log.
    """

    def __init__(self, options: ServerOptions, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        """What `Client.connect` takes."""
        return self.options.given or str(self.folder / "ready.json")

    @property
    def credentials(self) -> Credentials:
        """The owner's, or those of the key file that was given."""
        return find_credentials(self.target)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that its owner connects to."""
        host, _, port = self.credentials.address.rpartition(":")
        return host.removeprefix("tcp://").strip("[]"), int(port)

    @property
    def pid(self) -> int:
        """Of the server's own process; 0 where it was given."""
        return self.process.pid if self.process else 0

    def start(self) -> None:
        """Start it, unless it was given.

        Raises:
            SystemExit: it ended at once.
        """
        if self.options.given:
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command, environment = self.command(), self.environment()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self._wait_for((self.folder / "ready.json").exists, "no ready file was written")

    def wait_until_warm(self) -> Welcome:
        """Its welcome, as soon as all workers have everything loaded.

        Raises:
            SystemExit: it ended, or it takes too long.
        """
        welcomes: list[Welcome] = []

        def is_warm() -> bool:
            with contextlib.suppress(FocusError), Client.connect(self.target) as client:
                welcomes.append(client.hello())
            return bool(welcomes) and welcomes[-1].workers_ready >= welcomes[-1].workers > 0

        self._wait_for(is_warm, "its workers do not get ready")
        return welcomes[-1]

    def status(self) -> StatusReport:
        """How it is, asked over a connection of its own."""
        with Client.connect(self.target) as client:
            return client.status()

    def processes(self) -> list[psutil.Process]:
        """The server's own process and all that came from it."""
        if not self.process or self.process.poll() is not None:
            return []
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]

    def worker_pids(self) -> list[int]:
        """Of its workers, as it tells them."""
        return [worker.pid for worker in self.status().workers if worker.pid and worker.state != "lost"]

    def stop(self) -> list[str]:
        """End it as a user would, with SIGTERM; what it left behind, one line each."""
        if not self.process:
            return []
        family = self.processes()
        left = []
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(30)
            left += [f"exit status {status}"] if status else []
        except subprocess.TimeoutExpired:
            left.append("it did not end within 30 s")
        _, alive = psutil.wait_procs(family, timeout=5)
        left += [f"process {process.pid} still runs" for process in alive]
        left += [f"file {path.name}" for path in self.folder.glob("ready*")]
        self.kill(alive)
        return left

    def kill(self, others: list[psutil.Process] | None = None) -> None:
        """End it at once, with SIGKILL."""
        for process in others or []:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process:
            self.process.kill()
            self.process.wait()

    def command(self, **changes: object) -> list[str]:
        """That starts it, with other settings where they are given."""
        configuration = self.options.configuration(self.folder) | {name: str(value) for name, value in changes.items()}
        if self.options.pipeline:
            return [sys.executable, "-c", _SERVE_WITH_PIPELINE, json.dumps(configuration), self.options.pipeline]
        arguments = [argument for setting in _settings(configuration) for argument in ("--set", setting)]
        return [sys.executable, "-m", "focus_backend", "serve", *arguments]

    def environment(self) -> dict[str, str]:
        """Of its process."""
        return {**os.environ, "PYTHONPATH": str(ROOT), **self.options.environment}

    def _wait_for(self, is_so: Callable[[], bool], problem: str) -> None:
        until = time.monotonic() + START_SECONDS
        while not is_so():
            has_ended = self.process is not None and self.process.poll() is not None
            if has_ended or time.monotonic() > until:
                raise SystemExit(f"the server cannot be used: {'it ended' if has_ended else problem}\n{self._last_lines()}")
            time.sleep(0.1)

    def _last_lines(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-10:]) if self.log.exists() else ""


def _settings(configuration: Mapping) -> list[str]:
    """As `serve --set` reads them."""
    plain = {name: value for name, value in configuration.items() if not isinstance(value, dict)}
    plain |= {
        f"{table}.{name}": value for table, values in configuration.items() if isinstance(values, dict) for name, value in values.items()
    }
    return [f"{name}={json.dumps(value)}" for name, value in plain.items()]


@contextlib.contextmanager
def serving(options: ServerOptions, folder: Path) -> Iterator[ServerProcess]:
    """A warm server, ended afterwards whatever happens."""
    server = ServerProcess(options, folder)
    try:
        server.start()
        server.wait_until_warm()
        yield server
    finally:
        for line in server.stop():
            print(f"left behind: {line}", file=sys.stderr)


def restarted(server: ServerProcess) -> ServerProcess:
    """A new server with the same options in the same folder, started but perhaps not warm yet."""
    again = ServerProcess(server.options, server.folder)
    again.start()
    return again
