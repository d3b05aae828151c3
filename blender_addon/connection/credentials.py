# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is needed to talk to a backend: from the ready file of one of this user's, or from a key file."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import wire
from ..errors import AddonError
from .address import Address, parse_address
from .private_file import PrivateFileError, check_private_folder, damaged, read_private, text_field
from .processes import is_running
from .zeromq import zeromq

# Z85, 32 bytes.
_CURVE_KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_SECRET = re.compile(r"[0-9a-f]{64}")
_READY_NAME = re.compile(r"[0-9]+\.json")
_KEY_FILE_VERSION = 1
_START = "start one with the button Start, or with `focus-backend serve`"
_ASK = "ask the backend's owner for a key file, made with `focus-backend keys new`"


@dataclass(frozen=True)
class Credentials:
    """All that is needed to talk to one backend.

    Attributes:
        address: "tcp://127.0.0.1:40123".
        server_key: the backend's CURVE key, Z85.
        secret: for a backend of this user, to go with every request; "" for others.
        public_key: of our own CURVE pair, Z85; "" for a fresh one each time.
        secret_key: its other half.
        software: name and version of the backend, where known.
        pid: of the backend's process; 0 where not known.
    """

    address: str
    server_key: str
    secret: str = field(default="", repr=False)
    public_key: str = ""
    secret_key: str = field(default="", repr=False)
    software: str = ""
    pid: int = 0


@dataclass(frozen=True)
class _Ready:
    """A ready file that was read.

    Attributes:
        path: where it lies.
        credentials: in it.
        protocol: which the backend speaks.
        started: when its process was started; see `is_running`.
    """

    path: Path
    credentials: Credentials
    protocol: int
    started: float

    @property
    def is_live(self) -> bool:
        """Whether the backend's process lives."""
        return is_running(self.credentials.pid, self.started)


def is_loopback(address: str) -> bool:
    """Whether the address is on this machine; False for what is no address."""
    try:
        return parse_address(address).is_loopback
    except AddonError:
        return False


def read_ready_file(path: Path) -> Credentials:
    """The credentials in the ready file of a backend that lives and speaks our protocol.

    Raises:
        AddonError: the file is missing, damaged, another user's or open to others (code "server"), its backend has ended ("connection"),
            or speaks another version ("version").
    """
    try:
        ready = _read_ready(path)
    except PrivateFileError as error:
        raise AddonError(f"ready file {path} {error.problem}", error.remedy or _START, "server") from error
    return _usable(ready)


def live_servers() -> list[Path]:
    """Ready files of this user's backends that live, the newest first; what cannot be read is left out.

    Raises:
        AddonError: their folder is another user's, or others may write to it.
    """
    return [ready.path for ready in _live()]


def read_key_file(path: Path, address: str = "") -> Credentials:
    """The credentials in a key file.

    Args:
        path: of the file.
        address: where the backend is; "" for the address in the file.

    Raises:
        AddonError: the file is missing, damaged, of another version, another user's or open to others, or there is no address.
    """
    try:
        content = read_private(path)
        return _of_key(path, content, address)
    except PrivateFileError as error:
        raise AddonError(f"key file {path} {error.problem}", error.remedy or _ASK, "refused") from error


def find_credentials(address: str, key_file: Path | None) -> Credentials:
    """What is needed to talk to a backend.

    Args:
        address: "" for the newest of this user's backends, or for the one the key file names; on this machine without a key file: that
            of one of this user's backends.
        key_file: of a backend of somebody else or on another machine; a ready file is taken, too.

    Raises:
        AddonError: there is no such backend, it needs a key file, or a file cannot be used.
    """
    where = parse_address(address) if address.strip() else None
    if key_file is not None:
        return _of_file(key_file, str(where or ""))
    if where is None:
        return _of_newest()
    if not where.is_loopback:
        raise AddonError(f"the backend at {where} is on another machine and lets in known keys only", _ASK, "refused")
    for ready in _live():
        if parse_address(ready.credentials.address) == where:
            return _usable(ready)
    raise AddonError(f"no backend of yours listens at {where}", f"{_START}, or give a key file", "server")


def ready_folders() -> list[Path]:
    """Where this user's backends put their ready files; the folders may be missing."""
    folders = []
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # After sudo it may still name the other user's.
    if runtime and _is_own(Path(runtime)):
        folders.append(Path(runtime) / "focus-backend")
    # A backend that was started by a service or over ssh may have had no runtime folder.
    if sys.platform == "win32":
        folders.append(Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "focus-backend" / "run")
    elif sys.platform == "darwin":
        folders.append(Path.home() / "Library" / "Caches" / "focus-backend" / "run")
    else:
        folders.append(Path.home() / ".cache" / "focus-backend" / "run")
    return folders


def _of_newest() -> Credentials:
    live = _live()
    if not live:
        raise AddonError("no backend of yours is running", _START, "server")
    # An older one that we can talk to is better than a newer one that we cannot.
    return _usable(next((ready for ready in live if ready.protocol == wire.PROTOCOL), live[0]))


def _of_file(path: Path, address: str) -> Credentials:
    with contextlib.suppress(PrivateFileError):
        if "focus_key" not in read_private(path) and not address:
            _read_ready(path)
            return read_ready_file(path)
    return read_key_file(path, address)


def _of_key(path: Path, content: dict[str, Any], address: str) -> Credentials:
    version = content.get("focus_key")
    if not isinstance(version, int):
        raise damaged("focus_key")
    if version != _KEY_FILE_VERSION:
        raise PrivateFileError(f"is of version {version}", "update the extension, or ask the backend's owner for another file")
    server_key, public_key, secret_key = (_curve_key(content, name) for name in ("server_key", "public_key", "secret_key"))
    if zeromq().curve_public(secret_key.encode("ascii")).decode("ascii") != public_key:
        raise PrivateFileError("is damaged: its keys are no pair")
    where = address or text_field(content, "address")
    if not where:
        raise AddonError(f"key file {path} holds no address", "give the backend's as tcp://HOST:PORT", "config")
    return Credentials(str(parse_address(where)), server_key, public_key=public_key, secret_key=secret_key)


def _usable(ready: _Ready) -> Credentials:
    if ready.protocol != wire.PROTOCOL:
        problem = f"the backend of {ready.path} speaks version {ready.protocol} of the protocol, this extension version {wire.PROTOCOL}"
        raise AddonError(problem, "update the backend or the extension, so that both are of the same FOCUS version", "version")
    if not ready.is_live:
        raise AddonError(f"the backend of {ready.path} has ended (process {ready.credentials.pid} is gone)", _START, "connection")
    return ready.credentials


def _live() -> list[_Ready]:
    found = {ready.path: ready for folder in ready_folders() for ready in _ready_files(folder) if ready.is_live}
    return sorted(found.values(), key=lambda ready: ready.started, reverse=True)


def _ready_files(folder: Path) -> Iterator[_Ready]:
    # Unlike `Path.is_dir` it raises nothing, such as about a cache folder that became the administrator's.
    if not os.path.isdir(folder):
        return
    try:
        check_private_folder(folder)
        paths = [path for path in folder.iterdir() if _READY_NAME.fullmatch(path.name)]
    except (PrivateFileError, OSError) as error:
        problem = error.problem if isinstance(error, PrivateFileError) else f"cannot be read ({error.strerror or error})"
        raise AddonError(f"folder {folder} {problem}", getattr(error, "remedy", "") or "make it yours and readable", "server") from error
    for path in paths:
        with contextlib.suppress(PrivateFileError):
            yield _read_ready(path)


def _read_ready(path: Path) -> _Ready:
    """What a ready file holds, whether its backend lives or not.

    Raises:
        PrivateFileError: it cannot be used.
    """
    content = read_private(path)
    protocol = content.get("protocol")
    if not isinstance(protocol, int) or isinstance(protocol, bool):
        raise damaged("protocol")
    pid, started = content.get("pid"), content.get("started")
    if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 2**31:
        raise damaged("pid")
    if not isinstance(started, (int, float)) or isinstance(started, bool) or not abs(started) < 2**53:
        raise damaged("started")
    secret = text_field(content, "secret")
    if not _SECRET.fullmatch(secret):
        raise damaged("secret")
    address, server_key = str(_address(content)), _curve_key(content, "public_key")
    software = "".join(character for character in text_field(content, "software") if character.isprintable())
    return _Ready(path, Credentials(address, server_key, secret, software=software, pid=pid), protocol, float(started))


def _address(content: dict[str, Any]) -> Address:
    try:
        return parse_address(text_field(content, "address"))
    except AddonError:
        raise damaged("address") from None


def _curve_key(content: dict[str, Any], name: str) -> str:
    value = text_field(content, name)
    if not _CURVE_KEY.fullmatch(value):
        raise damaged(name)
    return value


def _is_own(folder: Path) -> bool:
    try:
        return folder.is_dir() and (os.name != "posix" or folder.stat().st_uid == os.getuid())
    except OSError:
        return False
