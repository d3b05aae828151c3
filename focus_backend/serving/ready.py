"""The ready file: how the owner of a server, and nobody else, learns its address, key and secret."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from focus_backend.errors import ConfigError, OutputError, ServerError
from focus_backend.serving.addresses import parse_address
from focus_backend.serving.private_files import (
    UnreadableFileError,
    check_private_folder,
    field_of,
    is_text,
    make_private_folder,
    read_private,
    write_private,
)
from focus_backend.serving.wire import PROTOCOL

# Z85 of 32 bytes; its alphabet has no space, quote or backslash.
_CURVE_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_SECRET = re.compile(r"[0-9a-f]{64}")
_OWN_NAME = re.compile(r"[0-9]{1,10}\.json")
_LEFT_BEHIND = re.compile(r"\.[0-9]{1,10}\.json\.([0-9]{1,10})\.[0-9a-f]{8}")
# Linux counts from a start of the machine that it rounds to seconds.
_START_TOLERANCE = 2.0
_REMEDY = "start one with `focus-backend serve`"


@dataclass(frozen=True)
class ReadyFile:
    """What a ready file holds.

    Attributes:
        address: where the owner connects, "tcp://127.0.0.1:40123".
        public_key: of the server, Z85.
        secret: 64 hex digits; every request of the owner carries it.
        pid: of the server.
        protocol: that it speaks.
        software: its name and version.
        started: when that process was started, seconds (`process_start`); tells it from a later one with its number.
    """

    address: str
    public_key: str
    secret: str = field(repr=False)
    pid: int
    protocol: int
    software: str
    started: float

    @classmethod
    def of_this_process(cls, address: str, public_key: str, secret: str, software: str) -> ReadyFile:
        """Of a server in this process."""
        started = process_start(os.getpid())
        assert started is not None  # this very process lives
        return cls(address, public_key, secret, os.getpid(), PROTOCOL, software, started)

    @property
    def is_live(self) -> bool:
        """Whether the server's process lives."""
        started = process_start(self.pid)
        return started is not None and abs(started - self.started) <= _START_TOLERANCE


def new_secret() -> str:
    """256 random bits as 64 hex digits."""
    return secrets.token_hex(32)


def is_curve_key(text: Any) -> bool:
    """Whether it is a CURVE key as Z85 text."""
    return isinstance(text, str) and _CURVE_KEY.fullmatch(text) is not None


def process_start(pid: int) -> float | None:
    """When a process was started, in seconds since a point that stays while the machine runs; None when it is dead."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        # Linux tells ticks since the machine's start: the wall clock, which may be set meanwhile, has to go out again.
        return process.create_time() - (psutil.boot_time() if sys.platform == "linux" else 0.0)
    except (psutil.Error, OverflowError, ValueError):
        # Another user's process, which some systems hide, is not the server that we look for.
        return None


def ready_folder() -> Path:
    """Where this user's ready files lie: in the runtime folder that the system clears, else among the caches."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # sudo may leave us the folder of the user who called it.
    if runtime and _is_own_folder(Path(runtime)):
        return Path(runtime) / "focus-backend"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
        return Path(local) / "focus-backend" / "run"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "focus-backend" / "run"
    return Path.home() / ".cache" / "focus-backend" / "run"


def write_ready(ready: ReadyFile, path: Path | None = None) -> Path:
    """Write the ready file, mode 0600 from its first byte, whole or not at all; returns where it lies.

    Args:
        path: None for `<pid>.json` in `ready_folder()`, where files of dead servers are removed, too.

    Raises:
        OutputError: the place cannot be written to, the disk is full, or the file of a running server or of another kind is there.
        ConfigError: the default folder belongs to another user, or others may write to it.
    """
    if path is None:
        path = ready_folder() / f"{ready.pid}.json"
        make_private_folder(path.parent)
        sweep_stale(path.parent)
    elif not path.parent.is_dir():
        make_private_folder(path.parent)
    if os.path.lexists(path):
        _check_replaceable(path)
    write_private(path, asdict(ready))
    return path


def read_ready(path: Path) -> ReadyFile:
    """The ready file of a server that lives.

    Raises:
        ServerError: the file is missing or damaged, or its server has ended.
    """
    try:
        ready = _parsed(path)
    except UnreadableFileError as error:
        raise ServerError(f"no server: ready file {error}", _REMEDY) from error
    if not ready.is_live:
        raise ServerError(f"the server of {path} has ended (process {ready.pid} is gone)", _REMEDY)
    return ready


def remove_ready(path: Path, ready: ReadyFile) -> bool:
    """Remove the file if it is still the one that was written, not a later server's; says whether it was. Never raises."""
    with contextlib.suppress(UnreadableFileError, OSError):
        if _parsed(path) == ready:
            path.unlink()
            return True
    return False


def live_servers(folder: Path | None = None) -> list[tuple[Path, ReadyFile]]:
    """Ready files of this user's servers that live, the newest first; damaged files and those of dead servers are left out.

    Raises:
        ConfigError: the folder belongs to another user, or others may write to it.
    """
    live = [(path, ready) for path, ready in _ready_files(folder or ready_folder()) if ready.is_live]
    return sorted(live, key=lambda entry: entry[1].started, reverse=True)


def sweep_stale(folder: Path | None = None) -> list[Path]:
    """Remove what dead servers left behind; returns what was removed.

    Raises:
        ConfigError: the folder belongs to another user, or others may write to it.
    """
    folder = folder or ready_folder()
    stale = [path for path, ready in _ready_files(folder) if not ready.is_live]
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            match = _LEFT_BEHIND.fullmatch(path.name)
            if match is not None and process_start(int(match[1])) is None:
                stale.append(path)
    removed = []
    for path in stale:
        with contextlib.suppress(OSError):
            path.unlink()
            removed.append(path)
    return removed


def _ready_files(folder: Path) -> Iterator[tuple[Path, ReadyFile]]:
    if not folder.exists():
        return
    check_private_folder(folder)
    try:
        paths = sorted(path for path in folder.iterdir() if _OWN_NAME.fullmatch(path.name))
    except OSError as error:
        raise ConfigError(f"folder {folder} cannot be read ({error.strerror or error})", "make it readable") from error
    for path in paths:
        with contextlib.suppress(UnreadableFileError):
            yield path, _parsed(path)


def _parsed(path: Path) -> ReadyFile:
    content = read_private(path)

    def number(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31

    address = field_of(content, "address", is_text, path)
    try:
        can_be_called = parse_address(address).can_be_called
    except ConfigError:
        can_be_called = False
    if not can_be_called:
        raise UnreadableFileError(f"{path} is damaged: its field 'address' is no address to connect to")
    return ReadyFile(
        address=address,
        public_key=field_of(content, "public_key", is_curve_key, path),
        secret=field_of(content, "secret", lambda value: isinstance(value, str) and _SECRET.fullmatch(value) is not None, path),
        pid=field_of(content, "pid", number, path),
        protocol=field_of(content, "protocol", number, path),
        software=field_of(content, "software", is_text, path),
        started=float(field_of(content, "started", lambda value: isinstance(value, int | float) and abs(value) < 2**53, path)),
    )


def _check_replaceable(path: Path) -> None:
    remedy = "choose another place for the ready file"
    try:
        there = _parsed(path)
    except UnreadableFileError:
        raise OutputError(f"{path} exists and is no ready file", remedy) from None
    # Without its file the owner could neither reach nor stop that server.
    if there.is_live and there.pid != os.getpid():
        raise OutputError(f"{path} belongs to a server that runs, process {there.pid}", f"stop that server, or {remedy}")


def _is_own_folder(folder: Path) -> bool:
    try:
        return folder.is_dir() and (os.name != "posix" or folder.stat().st_uid == os.getuid())
    except OSError:
        return False
