# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one backend that a session uses, from looking for it to its loss: ours, which is started, or one that runs already."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import wire
from ..connection.address import parse_address
from ..connection.backend_process import BackendProcess, find_backend
from ..connection.channel import Channel, Event, Lost
from ..connection.credentials import Credentials, find_credentials, is_loopback, read_ready_file
from ..connection.zeromq import zeromq
from ..errors import AddonError
from . import messages
from .settings import BackendSettings
from .worker import BackgroundWorker

OFF, STARTING, CONNECTING, GREETING, OPEN, FAILED = "off", "starting", "connecting", "greeting", "open", "failed"
_SOFTWARE = "FOCUS for Blender"
# While the workers load, the server is asked so often for what it offers.
_HELLO_SECONDS = 1.0
# A backend that does not answer a greeting for so long is another's, or of other keys.
_SECONDS_TO_GREET = 10.0
# The connection to a process that was killed breaks a moment before the process is seen to be gone.
_SECONDS_TO_SEE_THE_END = 0.5
# One that says that it is about to end may finish its work first.
_SECONDS_TO_END = 20.0
# On a slow line a large answer holds back every sign of life behind it.
_QUIET_SECONDS, _QUIET_SECONDS_AFAR = 10.0, 60.0


class Backend:
    """A backend and the connection to it. Of one thread, which is never held up.

    Attributes:
        state: "off", "starting", "connecting", "greeting" (it listens, its welcome is awaited), "open" or "failed".
        is_ours: whether it is a process of ours.
        address: where it listens; "" before that is known.
        welcome: its latest; None unless "open".
        error: why it "failed".
        was_open: whether it was "open" before it "failed".
        settings: those it was opened with.

    Args:
        folder: the extension's own, for log and ready file.
        parent_pid: of Blender, with which a backend of ours ends.
    """

    def __init__(self, folder: Path, parent_pid: int) -> None:
        self.state = OFF
        self.is_ours = False
        self.address = ""
        self.welcome: wire.Welcome | None = None
        self.error: AddonError | None = None
        self.was_open = False
        self.settings = BackendSettings()
        self._process = BackendProcess(folder, parent_pid)
        self._opener = BackgroundWorker("focus-face-opener")
        self._channel: Channel | None = None
        # Tells what an opener was asked for from what it was asked for before.
        self._attempt = 0
        self._hello = ""
        self._hello_due = 0.0
        self._opened = 0.0
        self._loss: Lost | None = None
        self._wait_for_end_until = 0.0

    @property
    def is_under_way(self) -> bool:
        """Whether it is open or will be."""
        return self.state not in (OFF, FAILED)

    def start(self, settings: BackendSettings) -> None:
        """Begins to start a backend of ours."""
        attempt = self._begin(STARTING, settings, is_ours=True)
        # Apart, so that a drive that hangs holds up this attempt only.
        self._opener.do_apart(lambda: _find_backend(settings.executable), lambda found: self._found_backend(attempt, found))

    def connect(self, settings: BackendSettings) -> None:
        """Begins to connect to one that runs."""
        attempt = self._begin(CONNECTING, settings, is_ours=False)
        self.address = settings.address
        self._opener.do_apart(lambda: _credentials(settings), lambda found: self._found_credentials(attempt, found))

    def close(self) -> None:
        """Ends the connection, and the process if it is ours."""
        self._attempt += 1
        self._disconnect()
        if self.is_ours and self._process.is_running:
            self._process.stop()
        self.state, self.is_ours, self.address, self.error = OFF, False, "", None

    def fail(self, error: AddonError) -> None:
        """Ends it because of an error."""
        was_ours, address, was_open = self.is_ours, self.address, self.state == OPEN
        self.close()
        self.state, self.is_ours, self.address, self.was_open, self.error = FAILED, was_ours, address, was_open, error

    def forget_failures(self) -> None:
        """The user wants it to be started again, however often it has ended."""
        self._process.breaker.reset()

    def expect_end(self) -> None:
        """A backend of ours has said that it is about to end; it fails when it has, or takes too long about it."""
        if self._loss is None:
            self._loss = Lost("the backend is about to end", "wait a little, then start it again", "closing")
            self._wait_for_end_until = time.monotonic() + _SECONDS_TO_END

    def has_answered(self) -> None:
        """It has done some work: should it end now, it is worth another start."""
        if self.is_ours:
            self._process.breaker.answered()

    @property
    def log_path(self) -> Path:
        """Where a backend of ours writes its log."""
        return self._process.log.path

    def end(self) -> None:
        """Closes it for good; half a second at most."""
        channel, self._channel = self._channel, None
        self.close()
        self._opener.close()
        if channel is not None:
            channel.close()

    def send(self, body: Any, arrays: Mapping[str, wire.Array] | None = None) -> str:
        """Sends a request; its id. Only while it is "open"."""
        assert self._channel is not None
        return self._channel.send(body, arrays)

    def take_events(self) -> list[Event]:
        """What came for requests since the last call; brings `state` up to date."""
        self._opener.take_outcomes()
        if self.state == STARTING:
            self._watch_start()
        events = self._read_channel()
        if self.is_ours and self._channel is not None and self._process.poll() == "ended":
            self.fail(messages.ended(self._process.failure))
        elif self._loss is not None:
            self._take_loss(self._loss)
        if self.state == GREETING and time.monotonic() - self._opened > _SECONDS_TO_GREET:
            self.fail(messages.unreachable(self.address))
        if self.state == OPEN and self._hello_due and time.monotonic() >= self._hello_due:
            self._greet()
        return events

    def _begin(self, state: str, settings: BackendSettings, is_ours: bool) -> int:
        self.close()
        self.state, self.is_ours, self.settings = state, is_ours, settings
        return self._attempt

    def _found_backend(self, attempt: int, found: Path | Exception | None) -> None:
        if attempt != self._attempt:
            return
        if isinstance(found, Exception):
            self.fail(found if isinstance(found, AddonError) else messages.unexpected(found))
        elif found is None:
            self.fail(messages.no_backend(self.settings.executable))
        else:
            try:
                self._process.start(found, self.settings.arguments)
            except AddonError as error:
                self.fail(error)

    def _found_credentials(self, attempt: int, found: Credentials | Exception) -> None:
        if attempt != self._attempt:
            return
        if isinstance(found, Exception):
            self.fail(found if isinstance(found, AddonError) else messages.unexpected(found))
        else:
            self._open_channel(found)

    def _watch_start(self) -> None:
        # Before it runs, its state is that of the process before.
        if not self._process.is_running:
            return
        state = self._process.poll()
        if state == "ended":
            self.fail(messages.ended(self._process.failure))
        elif state == "listening" and self._process.ready is not None:
            try:
                self._open_channel(read_ready_file(self._process.ready))
            except AddonError as error:
                self.fail(error)

    def _open_channel(self, credentials: Credentials) -> None:
        self.address, self.state, self._opened = credentials.address, GREETING, time.monotonic()
        try:
            quiet = _QUIET_SECONDS if is_loopback(credentials.address) else _QUIET_SECONDS_AFAR
            self._channel = Channel(credentials, quiet_seconds=quiet)
        except AddonError as error:
            self.fail(error)
        else:
            self._greet()

    def _greet(self) -> None:
        assert self._channel is not None
        self._hello, self._hello_due = self._channel.send(wire.Hello(_SOFTWARE)), 0.0

    def _read_channel(self) -> list[Event]:
        events: list[Event] = []
        for event in self._channel.events() if self._channel is not None else ():
            if isinstance(event.body, Lost):
                # Where it has failed already, that reason tells more.
                if self._loss is None and self._channel is not None:
                    self._loss, self._wait_for_end_until = event.body, time.monotonic() + _SECONDS_TO_SEE_THE_END
            elif event.id == self._hello:
                self._greeted(event.body)
            else:
                events.append(event)
        return events

    def _greeted(self, body: Any) -> None:
        if isinstance(body, wire.Welcome):
            self.state, self.welcome = OPEN, body
            self._hello_due = 0.0 if body.workers_ready else time.monotonic() + _HELLO_SECONDS
        elif isinstance(body, wire.Error) and self.state == GREETING:
            self.fail(messages.of_answer(body))
        elif self.state == OPEN:
            # It may be too busy to repeat what it offers.
            self._hello_due = time.monotonic() + _HELLO_SECONDS

    def _take_loss(self, lost: Lost) -> None:
        """Fails because of a lost connection; of a process of ours that has gone its log tells more."""
        if self.is_ours and time.monotonic() < self._wait_for_end_until:
            return
        self.fail(AddonError(messages.one_line(lost.problem), messages.one_line(lost.remedy), lost.code))

    def _disconnect(self) -> None:
        if self._channel is not None:
            # It says goodbye first, for which Blender's window must not wait.
            self._channel.close(is_awaited=False)
        self._channel, self.welcome, self._loss, self._hello, self._hello_due = None, None, None, "", 0.0


def _find_backend(executable: str) -> Path | None:
    """The program to start; None when there is none.

    Raises:
        AddonError: ZeroMQ is missing, without which no program is of use.
    """
    # Importing it takes a while, too, which is better spent here than in Blender's thread.
    zeromq()
    return find_backend(executable)


def _credentials(settings: BackendSettings) -> Credentials:
    """Those of the backend to connect to.

    Raises:
        AddonError: ZeroMQ is missing, there is no such backend, or it is on another machine and online access is off.
    """
    zeromq()
    # Before the search, which would ask for a key that is of no use.
    if not settings.online and settings.address.strip() and not parse_address(settings.address).is_loopback:
        raise messages.offline(settings.address)
    credentials = find_credentials(settings.address, Path(settings.key_file) if settings.key_file else None)
    if not settings.online and not is_loopback(credentials.address):
        raise messages.offline(credentials.address)
    return credentials
