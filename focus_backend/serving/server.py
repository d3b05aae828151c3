"""The server: one thread that owns all sockets and never waits for one client or worker."""

from __future__ import annotations

import contextlib
import ctypes
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zmq

from focus_backend import __version__
from focus_backend.errors import FocusError, InternalError, ServerError
from focus_backend.serving import wire
from focus_backend.serving.addresses import Address
from focus_backend.serving.authentication import OWNER, Authenticator, ClientKeys
from focus_backend.serving.broker import UNKNOWN_ID, Broker
from focus_backend.serving.client_sender import ClientSender
from focus_backend.serving.config import ServerConfig
from focus_backend.serving.endpoints import Endpoint, bind_clients, bind_workers, planned
from focus_backend.serving.frames import views
from focus_backend.serving.keys import KeyFolder
from focus_backend.serving.log import EventLog
from focus_backend.serving.outbox import ReplaceWorker, Route, ToClient
from focus_backend.serving.parent import Parent
from focus_backend.serving.ready import ReadyFile, new_secret, remove_ready, write_ready
from focus_backend.serving.stop_signals import StopSignals
from focus_backend.serving.worker_link import WorkerLink
from focus_backend.serving.worker_processes import WorkerProcesses, count_of_workers, largest_batch

DEFAULT_PIPELINE = "focus_backend.serving.pipeline:load_pipeline"
SOFTWARE = f"focus-backend {__version__}"
_TICK_SECONDS = 0.05
_RETRY_SECONDS = 0.005
_MOST_AT_ONCE = 64
_MOST_HANDLES, _FEWER_HANDLES = 65536, 10240
_SECONDS_TO_FLUSH = 2.0
# glibc's numbers for its settings, and how much freed memory it may keep.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _KEPT_BYTES = -1, -3, 64 * 2**20
# Under a name that a client chose another could get its answers later. One like ZeroMQ's own cannot be told apart, but has to be guessed.
_GIVEN_BY_US = b"\0"
_CHOSEN_IDENTITY = wire.Error("protocol", "the connection has an identity of its own", "leave the socket's ZMQ_ROUTING_ID empty")
# After the second signal, for answers that are on their way.
_SECONDS_AT_ONCE = 0.5


def serve(config: ServerConfig, *, pipeline: str = DEFAULT_PIPELINE, announce: Callable[[Path], None]) -> int:
    """Runs a server until it is asked to end.

    Args:
        config: all settings.
        pipeline: "module:function" that its workers load.
        announce: told where the ready file lies, once clients can connect.

    Returns:
        The exit code: 0, or 1 when the server failed by its own fault.

    Raises:
        ConfigError, OutputError, ServerError: it cannot listen, write its ready file or load its pipeline.
    """
    log = EventLog(config.log)
    try:
        with StopSignals() as signals:
            _raise_handle_limit()
            _keep_freed_memory()
            server = Server(config, planned(config), pipeline=pipeline, log=log)
            try:
                server.run(announce, signals)
            finally:
                server.close()
    except FocusError:
        raise
    except Exception as error:
        log("server-failed", level="error", problem=f"{type(error).__name__}: {error}", where=_places(error))
        return 1
    finally:
        log.close()
    return 0


class Server:
    """All that a server holds while it runs.

    Args:
        config: all settings.
        addresses: where it listens.
        pipeline: "module:function" that its workers load.
        log: takes an event and its fields.

    Raises:
        ConfigError, OutputError, ServerError: it cannot listen there.
    """

    def __init__(self, config: ServerConfig, addresses: Sequence[Address], *, pipeline: str, log: Callable[..., None]) -> None:
        self._config = config
        self._log = log
        self._context: zmq.Context[Any] = zmq.Context()
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self._context.destroy, linger=0)
            self._parent = Parent(config.parent_pid)
            clients = ClientKeys(KeyFolder(config.keys).path)
            processes = WorkerProcesses(config, pipeline=pipeline, log=log)
            self._authenticator = Authenticator(self._context, clients=clients, worker_tokens=processes.tokens, log=log)
            self._endpoints = bind_clients(self._context, config, addresses)
            self._secret = new_secret()
            batch = largest_batch(config)
            self._broker = Broker(config, secret=self._secret, batch=batch, software=SOFTWARE, log=log, is_allowed=clients.is_allowed)
            self._workers = WorkerLink(*bind_workers(self._context), processes=processes, broker=self._broker, log=log)
            on_failure.pop_all()
        sockets = [endpoint.socket for endpoint in self._endpoints]
        self._sender = ClientSender(sockets, gone=self._broker.client_gone, undelivered=self._broker.undelivered, log=log)
        self._ready: tuple[Path, ReadyFile] | None = None
        self._signals_heeded = 0
        # When to end whatever is still under way.
        self._latest_end = float("inf")

    def run(self, announce: Callable[[Path], None], signals: StopSignals) -> None:
        """Serves until it is asked to end and what was under way has ended.

        Raises:
            ServerError: the pipeline cannot be loaded.
            OutputError: the ready file cannot be written.
        """
        announce(self._write_ready())
        self._workers.start(count_of_workers(self._config))
        poller = self._poller()
        ticked = time.monotonic()
        while not self._is_over():
            # A socket does not tell when one client of many takes answers again.
            pause = _TICK_SECONDS if self._sender.is_empty else _RETRY_SECONDS
            self._receive(dict(poller.poll(1 + int(1000 * max(0.0, min(pause, ticked + _TICK_SECONDS - time.monotonic()))))))
            if time.monotonic() - ticked >= _TICK_SECONDS:
                ticked = time.monotonic()
                self._look_around(signals)
            self._sender.retry()
            self._carry_out()
        if self._broker.failure is not None:
            raise _failure_of(self._broker.failure)

    def close(self) -> None:
        """Ends the workers, sends what waits for clients, and leaves nothing behind."""
        with contextlib.ExitStack() as steps:
            # In reverse order, each whatever became of the one before.
            steps.callback(self._context.destroy, linger=0)
            for endpoint in self._endpoints:
                steps.callback(endpoint.socket.close, linger=int(1000 * _SECONDS_TO_FLUSH))
            steps.callback(self._authenticator.close)
            steps.callback(self._workers.socket.close, linger=0)
            steps.callback(self._workers.end)
            steps.callback(self._remove_ready)
        self._log("server-ended")

    def _write_ready(self) -> Path:
        owner = next(endpoint for endpoint in self._endpoints if endpoint.kind == OWNER)
        ready = ReadyFile.of_this_process(owner.address, owner.public_key, self._secret, SOFTWARE)
        path = write_ready(ready, self._config.ready_file)
        self._ready = (path, ready)
        for endpoint in self._endpoints:
            self._log("listening", address=endpoint.address, clients=endpoint.kind)
        return path

    def _remove_ready(self) -> None:
        if self._ready is not None:
            remove_ready(*self._ready)
            self._ready = None

    def _poller(self) -> zmq.Poller:
        poller = zmq.Poller()
        for socket in (self._authenticator.socket, self._workers.socket, *(endpoint.socket for endpoint in self._endpoints)):
            poller.register(socket, zmq.POLLIN)
        return poller

    def _receive(self, waiting: dict[Any, int]) -> None:
        if self._authenticator.socket in waiting:
            for _ in range(_MOST_AT_ONCE):
                if not self._authenticator.answer():
                    break
        if self._workers.socket in waiting:
            self._workers.receive()
        for number, endpoint in enumerate(self._endpoints):
            if endpoint.socket in waiting:
                self._receive_clients(number, endpoint)

    def _receive_clients(self, number: int, endpoint: Endpoint) -> None:
        for _ in range(_MOST_AT_ONCE):
            try:
                identity, *frames = endpoint.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            user = _user_of(frames[-1]) if frames else ""
            route = Route(endpoint.kind, identity.bytes, user, number)
            if user and identity.bytes.startswith(_GIVEN_BY_US):
                self._broker.client_message(route, views(frames))
            elif user:
                self._sender.send(ToClient(route, wire.pack(wire.Message(UNKNOWN_ID, _CHOSEN_IDENTITY)), is_final=True))

    def _look_around(self, signals: StopSignals) -> None:
        """What is done every tick: signals, deaths, deadlines."""
        if reason := self._reason_to_stop(signals):
            self._stop(reason)
        self._workers.watch()
        self._broker.tick()
        if self._broker.is_closing:
            self._remove_ready()

    def _reason_to_stop(self, signals: StopSignals) -> str:
        if signals.count > self._signals_heeded:
            self._signals_heeded += 1
            return "signal"
        return "the parent process ended" if not self._broker.is_closing and self._parent.is_gone() else ""

    def _stop(self, reason: str) -> None:
        """Lets running work end; does not wait for it when asked a second time."""
        is_urgent = self._broker.is_closing
        grace = 0.0 if is_urgent else self._config.grace_seconds
        self._log("stopping", reason=reason, grace_seconds=grace)
        self._broker.close(grace)
        if is_urgent:
            self._latest_end = time.monotonic() + _SECONDS_AT_ONCE

    def _carry_out(self) -> None:
        # A client that turns out to be gone leaves more to do.
        while actions := self._broker.take_out():
            for action in actions:
                if isinstance(action, ToClient):
                    self._sender.send(action)
                elif isinstance(action, ReplaceWorker):
                    self._workers.replace(action)
                else:
                    self._workers.send(action)

    def _is_over(self) -> bool:
        if not self._broker.is_finished:
            return time.monotonic() >= self._latest_end
        self._latest_end = min(self._latest_end, time.monotonic() + _SECONDS_TO_FLUSH)
        return self._sender.is_empty or time.monotonic() >= self._latest_end


def _user_of(frame: zmq.Frame) -> str:
    """Whom the authenticator let in; "" for nobody, which ZeroMQ does not let happen."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""


def _failure_of(failure: wire.Error) -> ServerError:
    kind = InternalError if failure.code == InternalError.code else ServerError
    return kind(failure.problem, failure.remedy)


def _raise_handle_limit() -> None:
    """As many open connections as the system admits, for it counts on programs to ask."""
    try:
        import resource
    except ImportError:
        # Windows has no such limit.
        return
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_HANDLES if most == resource.RLIM_INFINITY else min(most, _MOST_HANDLES)
    if now == resource.RLIM_INFINITY or now >= wanted:
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        return
    with contextlib.suppress(OSError, ValueError):
        # macOS admits less than it says.
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, min(wanted, _FEWER_HANDLES)), most))


def _keep_freed_memory() -> None:
    """Lets the C library use the memory of one message for the next; given back, the system would clear it anew each time."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        # Of glibc only: elsewhere there is no such function.
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES // 2)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _places(error: BaseException) -> str:
    entries = reversed(traceback.extract_tb(error.__traceback__))
    return " < ".join(f"{Path(entry.filename).name}:{entry.lineno} in {entry.name}" for entry in entries)
