# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backend of our own: a process that is started on demand, watched, and ended with Blender."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from .. import wire
from ..errors import AddonError
from .backend_log import BackendLog
from .channel import Channel
from .child_environment import child_environment
from .credentials import read_ready_file
from .installed_backends import find_backend
from .processes import is_running
from .restart_breaker import RestartBreaker

__all__ = ["BackendProcess", "ProcessState", "RestartBreaker", "find_backend"]

ProcessState = Literal["off", "starting", "listening", "ended"]
_READY_NAME = re.compile(r"backend-([0-9]+)-[0-9]+\.json")
# A backend that was asked to end is asked a second time, not to wait for its work, and then not asked any more.
_SECONDS_TO_HURRY, _SECONDS_TO_END = 1.5, 5.0
_SECONDS_BETWEEN_LOG_LOOKS = 10.0
_LOOK_AT_LOG = "look at its log"


class BackendProcess:
    """`focus-backend serve` as a child of this process. Belongs to one thread; nothing here waits.

    Args:
        folder: the extension's own folder; made when needed. The log and the ready file lie there.
        parent_pid: with this process the backend ends, too.
        startup_seconds: within which it has to listen.
    """

    def __init__(self, folder: Path, parent_pid: int, startup_seconds: float = 120.0) -> None:
        self.breaker = RestartBreaker()
        self.log = BackendLog(folder, parent_pid)
        # Once it listens.
        self.ready: Path | None = None
        # Why it ended by itself.
        self.failure: AddonError | None = None
        self._folder = folder
        self._parent_pid = parent_pid
        self._startup_seconds = startup_seconds
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_path = folder / "none.json"
        self._started = self._looked_at_log = 0.0

    @property
    def is_running(self) -> bool:
        """Whether there is a process, as far as `poll` has seen."""
        return self._process is not None

    def start(self, executable: Path, arguments: Sequence[str] = ()) -> None:
        """Starts a backend; does nothing while one runs.

        Args:
            executable: `focus-backend`.
            arguments: more of `focus-backend serve`.

        Raises:
            AddonError: the last starts all failed (code "breaker"; `breaker.reset()` allows another), or it cannot be run.
        """
        if self._process is not None:
            return
        if self.breaker.is_open:
            problem = "the backend ended again and again soon after its start"
            if self.failure is not None:
                problem = f"{problem}; {self.failure.problem}"
            raise AddonError(problem, f"{_LOOK_AT_LOG}, mend it, then press Start", "breaker")
        _check_executable(executable)
        self._starts += 1
        # A name of its own: the backend before may still be about to remove its file.
        self._ready_path = self._folder / f"backend-{self._parent_pid}-{self._starts}.json"
        self.ready = self.failure = None
        given = ["--ready-file", str(self._ready_path), "--parent-pid", str(self._parent_pid)]
        self._process = self._run([str(executable), "serve", *given, *arguments])
        self._started = time.monotonic()
        self.breaker.started()

    def poll(self) -> ProcessState:
        """How it is: "off" before a start and after `stop`, "starting", "listening" with `ready`, "ended" with `failure`."""
        if self._process is None:
            return "ended" if self.failure is not None else "off"
        code = self._process.poll()
        if code is not None:
            return self._has_ended(_ending(code, self.log.last_line(), was_ready=self.ready is not None))
        if self.ready is None:
            return self._look_for_ready()
        now = time.monotonic()
        if now - self._looked_at_log >= _SECONDS_BETWEEN_LOG_LOOKS:
            self._looked_at_log = now
            self.log.bound()
        return "listening"

    def stop(self) -> None:
        """Asks it to end; it is killed when it has not done so in 5 s."""
        process, ready = self._process, self.ready
        self._process = self.ready = self.failure = None
        if process is None or process.poll() is not None:
            return
        if os.name == "posix":
            process.terminate()
        # A daemon: Blender need not wait for it. The backend sees the end of Blender by itself.
        threading.Thread(target=_end, args=(process, ready), name="focus-backend-end", daemon=True).start()

    def _look_for_ready(self) -> ProcessState:
        if self._ready_path.exists():
            try:
                read_ready_file(self._ready_path)
            except AddonError as error:
                # One that ends is no bad file: the next look at the process tells why.
                if error.code != "connection" and self._ready_path.exists():
                    return self._give_up(error)
            else:
                self.ready = self._ready_path
                return "listening"
        if time.monotonic() - self._started > self._startup_seconds:
            said = self.log.last_line()
            problem = f"the backend did not listen within {self._startup_seconds:g} s" + (f"; it said: {said}" if said else "")
            return self._give_up(AddonError(problem, _LOOK_AT_LOG, "startup"))
        return "starting"

    def _give_up(self, error: AddonError) -> ProcessState:
        self.stop()
        return self._has_ended(error, too_late=True)

    def _has_ended(self, error: AddonError, *, too_late: bool = False) -> ProcessState:
        self.breaker.ended(too_late=too_late)
        self._process = self.ready = None
        self.failure = error
        return "ended"

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _remove_left_behind(self._folder)
            _check_space(self._folder)
            log = self.log.open()
        except OSError as error:
            problem = f"the extension's folder {self._folder} cannot be written to ({error.strerror or error})"
            raise AddonError(problem, "make it writable, or free some space", "output") from error
        with log:
            try:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._working_folder(),
                    env=child_environment(),
                    # Ctrl-C in the terminal that Blender was started from is not meant for it.
                    start_new_session=os.name == "posix",
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                raise _cannot_run(command[0], error) from error

    def _working_folder(self) -> Path:
        """Not the folder that Blender was started in: a drive could not be taken out, a folder not removed."""
        home = os.path.expanduser("~")
        # Unlike `Path.is_dir` it raises nothing.
        return Path(home) if os.path.isdir(home) else self._folder


def _check_executable(path: Path) -> None:
    remedy = "give the program `focus-backend` in the preferences"
    if path.is_dir():
        raise AddonError(f"{path} is a folder, not the backend's program", remedy, "executable")
    if not path.exists():
        raise AddonError(f"the backend's program {path} does not exist", f"install it, or {remedy}", "executable")
    if not os.access(path, os.X_OK):
        raise AddonError(f"{path} is not a program that can be run", remedy, "executable")


def _cannot_run(executable: str, error: Exception) -> AddonError:
    remedy = "install the backend again, or give another in the preferences"
    number = getattr(error, "errno", None)
    if number == errno.ENOENT:
        # The script is there, so it is what its first line names.
        return AddonError(f"{executable} cannot be run: the Python that it was installed with is gone", remedy, "executable")
    reason = getattr(error, "strerror", None) or str(error)
    return AddonError(f"{executable} cannot be run ({reason})", remedy, "executable")


def _ending(code: int, said: str, *, was_ready: bool) -> AddonError:
    """What to tell about a backend that ended by itself."""
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    when = "" if was_ready else " before it listened"
    if code == 0:
        return AddonError(f"the backend ended{when}", "start it again", "ended")
    words = f": {said}" if said and code > 0 else ""
    return AddonError(f"the backend {how}{when}{words}", f"{_LOOK_AT_LOG}, then start it again", "ended")


def _end(process: subprocess.Popen[bytes], ready: Path | None) -> None:
    """Sees to it that a process ends."""
    if os.name == "posix":
        if not _has_ended(process, _SECONDS_TO_HURRY):
            process.terminate()
        if _has_ended(process, _SECONDS_TO_END - _SECONDS_TO_HURRY):
            # What is left of a script's children, whose own end told them nothing.
            _signal_group(process, signal.SIGTERM)
            return
        _signal_group(process, signal.SIGKILL)
    elif ready is not None:
        # There is no signal that asks.
        _ask_to_end(ready)
        if _has_ended(process, _SECONDS_TO_END):
            return
    process.kill()
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, number)


def _has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _ask_to_end(ready: Path) -> None:
    """Sends the backend a `Shutdown`."""
    with contextlib.suppress(AddonError):
        channel = Channel(read_ready_file(ready))
        channel.send(wire.Shutdown(0.0))
        latest = time.monotonic() + 2.0
        while not channel.events() and time.monotonic() < latest:
            time.sleep(0.02)
        channel.close()


def _check_space(folder: Path) -> None:
    """On a full disk a backend ends without a word, for its log is empty.

    Raises:
        OSError: less than 64 KiB can be written.
    """
    probe = folder / f".space-{os.getpid()}"
    try:
        probe.write_bytes(bytes(2**16))
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _remove_left_behind(folder: Path) -> None:
    """Ready files of backends that were killed together with their Blender."""
    for path in folder.iterdir():
        match = _READY_NAME.fullmatch(path.name)
        if match is None:
            continue
        with contextlib.suppress(OSError):
            try:
                read_ready_file(path)
            except AddonError:
                if not is_running(int(match[1])):
                    path.unlink()
