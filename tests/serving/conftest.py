"""A real server process with quick pipelines, and a plain client made of nothing but ZeroMQ and the wire's messages."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from focus_backend.serving import wire
from focus_backend.serving.config import ServerConfig
from focus_backend.serving.credentials import Credentials
from focus_backend.serving.ready import ReadyFile, read_ready

# Guards against hanging; a test that gets there has failed.
PATIENCE = 30.0
_HERE = Path(__file__).parent
# Its own folder of modules, so that workers find `pipelines`.
_SERVER = """
import sys
sys.path.insert(0, sys.argv[1])
from focus_backend.errors import FocusError
from focus_backend.serving.config import ServerConfig
from focus_backend.serving.server import serve
config = ServerConfig.model_validate_json(sys.argv[2])
try:
    code = serve(config, pipeline=sys.argv[3], announce=lambda path: print(path, flush=True))
except FocusError as error:
    print(error, file=sys.stderr)
    code = error.exit_code
print("slow modules:", *(name for name in ("torch", "numpy", "scipy", "PIL") if name in sys.modules), flush=True)
sys.exit(code)
"""


class Talker:
    """One connection to a server.

    Args:
        credentials: of the server and for it.
    """

    def __init__(self, credentials: Credentials) -> None:
        self.secret = credentials.secret
        self._ids = itertools.count(1)
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        public, secret = zmq.curve_keypair()
        if credentials.public_key:
            public, secret = credentials.public_key.encode(), credentials.secret_key.encode()
        self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
        self.socket.curve_serverkey = credentials.server_key.encode()
        self.socket.connect(credentials.address)

    def send(
        self, body: Any, arrays: dict[str, wire.Array] | None = None, *, message_id: str | None = None, secret: str | None = None
    ) -> str:
        """Sends a request; its id."""
        message_id = message_id or f"{os.getpid()}-{id(self)}-{next(self._ids)}"
        message = wire.Message(message_id, body, arrays or {}, self.secret if secret is None else secret)
        self.socket.send_multipart(wire.pack(message))
        return message_id

    def reconstruct(self, orders: str = "", **request: Any) -> str:
        """Sends a photo that tells the quick pipeline what to do; the request's id."""
        photo = wire.Array.of((orders or "faces 1").encode())
        return self.send(wire.Reconstruct(**{"parts": ["geometry"]} | request), {"photo": photo})

    def receive(self, seconds: float = PATIENCE) -> wire.Message:
        """The next answer."""
        if not self.socket.poll(int(1000 * seconds)):
            raise TimeoutError("the server does not answer")
        return wire.unpack(self.socket.recv_multipart(), wire.ANSWERS, wire.ANSWER_LIMITS)

    def all_until_final(self, message_id: str, seconds: float = PATIENCE) -> list[wire.Message]:
        """The answers to a request up to its last; those to others are thrown away."""
        latest = time.monotonic() + seconds
        answers: list[wire.Message] = []
        while not answers or isinstance(answers[-1].body, wire.Accepted | wire.Progress):
            answer = self.receive(max(0.0, latest - time.monotonic()))
            if answer.id == message_id:
                answers.append(answer)
        return answers

    def final(self, message_id: str, seconds: float = PATIENCE) -> wire.Message:
        """The last answer to a request."""
        return self.all_until_final(message_id, seconds)[-1]

    def ask(self, body: Any, **sending: Any) -> Any:
        """What a request is answered with in the end."""
        return self.final(self.send(body, **sending)).body

    def until_started(self, message_id: str) -> None:
        """Waits for the first progress of a request."""
        while True:
            answer = self.receive()
            if answer.id == message_id and isinstance(answer.body, wire.Progress):
                return

    def close(self) -> None:
        """Ends the connection."""
        self._context.destroy(linger=0)


@dataclass
class RunningServer:
    """A server in a process of its own.

    Attributes:
        process: its; standard output goes on after the ready file's path.
        ready_path: of the ready file.
        ready: what it held.
        log_path: where its log goes.
        config: of the server.
    """

    process: subprocess.Popen[str]
    ready_path: Path
    ready: ReadyFile
    log_path: Path
    config: ServerConfig
    _talkers: list[Talker] = field(default_factory=list)
    _seen: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def credentials(self) -> Credentials:
        """Of the owner."""
        return Credentials(self.ready.address, self.ready.public_key, self.ready.secret)

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self.log_path.read_text()

    def port_for_others(self) -> int:
        """Where it listens for other machines; the log tells what the system chose, perhaps a little after the ready file."""
        latest = time.monotonic() + PATIENCE
        while time.monotonic() < latest:
            if found := re.search(r"listening address=tcp://\S+:(\d+) clients=remote", self.log):
                return int(found[1])
            time.sleep(0.01)
        raise TimeoutError(f"it listens for nobody else:\n{self.log}")

    def talk(self, credentials: Credentials | None = None) -> Talker:
        """A new connection, closed at the end."""
        self._talkers.append(Talker(credentials or self.credentials))
        return self._talkers[-1]

    def workers(self) -> list[int]:
        """Process ids of the workers that live."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        self._seen |= {child.pid: child for child in children}
        return sorted(child.pid for child in children if is_alive(child))

    def wait_ready(self, workers: int | None = None) -> wire.Welcome:
        """Waits until the workers have everything loaded."""
        talker = Talker(self.credentials)
        try:
            latest = time.monotonic() + PATIENCE
            while time.monotonic() < latest:
                welcome = talker.ask(wire.Hello())
                if welcome.workers_ready >= (workers or max(1, self.config.workers)):
                    self.workers()
                    return welcome
                time.sleep(0.02)
        finally:
            talker.close()
        raise TimeoutError(f"the workers are not ready:\n{self.log}")

    def send_signal(self, number: int) -> None:
        """Sends the server process a signal."""
        self.workers()
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Waits for the end; the exit code."""
        return self.process.wait(seconds)

    def orphans(self, seconds: float = PATIENCE) -> list[int]:
        """Workers that still live so long after the end."""
        latest = time.monotonic() + seconds
        # Not psutil's own waiting, which goes on until somebody reaps them.
        while (alive := [pid for pid, process in self._seen.items() if is_alive(process)]) and time.monotonic() < latest:
            time.sleep(0.02)
        return alive

    def end(self) -> None:
        """Ends it however it is, with its workers."""
        for talker in self._talkers:
            talker.close()
        self.workers()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        for pid in self.orphans():
            os.kill(pid, signal.SIGKILL)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs, and is not only waiting to be reaped."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command(folder: Path, pipeline: str = "pipelines:load_quick", **settings: Any) -> tuple[list[str], ServerConfig]:
    """The command line of a server that keeps its files in the folder."""
    given = {"workers": 1, "ready_file": str(folder / "ready.json"), "keys": str(folder / "keys"), "grace_seconds": 5.0}
    config = ServerConfig.model_validate_json(json.dumps(given | settings))
    return [sys.executable, "-c", _SERVER, str(_HERE), config.model_dump_json(), pipeline], config


def spawn(folder: Path, pipeline: str = "pipelines:load_quick", **settings: Any) -> tuple[subprocess.Popen[str], ServerConfig]:
    """A server process that has just been started; its log is `server.log` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments, config = command(folder, pipeline, **settings)
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
    return process, config


def start(folder: Path, pipeline: str = "pipelines:load_quick", **settings: Any) -> RunningServer:
    """A server that listens; its workers may still load."""
    process, config = spawn(folder, pipeline, **settings)
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line.endswith(".json"):
        process.wait(PATIENCE)
        raise AssertionError(f"the server did not start: {(folder / 'server.log').read_text()}")
    return RunningServer(process, Path(line), read_ready(Path(line)), folder / "server.log", config)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Starts servers: `start_server(pipeline="pipelines:load_quick", **settings of ServerConfig)`."""
    servers: list[RunningServer] = []

    def start_one(pipeline: str = "pipelines:load_quick", **settings: Any) -> RunningServer:
        servers.append(start(tmp_path / f"server{len(servers)}", pipeline, **settings))
        return servers[-1]

    yield start_one
    for server in servers:
        server.end()


@pytest.fixture
def spawn_server(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts server processes that may fail to start: the process, its log in `tmp_path / "server.log"`."""
    processes: list[subprocess.Popen[str]] = []

    def spawn_one(pipeline: str = "pipelines:load_quick", **settings: Any) -> subprocess.Popen[str]:
        processes.append(spawn(tmp_path, pipeline, **settings)[0])
        return processes[-1]

    yield spawn_one
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def server_command(tmp_path: Path) -> list[str]:
    """The command line of a server with `tmp_path / "ready.json"`, for tests that start it in a way of their own."""
    return command(tmp_path)[0]


@pytest.fixture(scope="module")
def quick_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server with two workers for all tests of a file; they leave it as they found it."""
    server = start(tmp_path_factory.mktemp("server"), workers=2)
    server.wait_ready()
    yield server
    server.end()
