"""The key folder: the server's own CURVE key, and those of the clients it lets in from other machines."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from focus_backend.errors import ConfigError, OutputError, ServerError
from focus_backend.serving.addresses import parse_address
from focus_backend.serving.private_files import (
    UnreadableFileError,
    check_private_folder,
    field_of,
    is_open_to_others,
    is_text,
    make_private_folder,
    read_private,
    write_private,
)
from focus_backend.serving.ready import is_curve_key

# Also a file's name, on every system.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?")
# What Windows takes for devices, and what the server calls its owner.
_TAKEN = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|owner", re.IGNORECASE)
_KEY_FILE_VERSION = 1


@dataclass(frozen=True)
class KeyEntry:
    """A client's key as the server knows it.

    Attributes:
        name: of the client, chosen by the server's owner.
        public_key: Z85.
        created: date and time, ISO 8601, UTC.
        revoked: the same, or None while the key is let in.
    """

    name: str
    public_key: str
    created: str
    revoked: str | None = None


def default_key_folder() -> Path:
    """FOCUS_KEYS, or `focus-backend/keys` in the user's configuration folder."""
    chosen = os.environ.get("FOCUS_KEYS")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "focus-backend" / "keys"


def is_key_name(name: str) -> bool:
    """Whether it can be a client's: up to 64 letters, digits, `-`, `_` and `.`, first a letter or digit, and no name with a meaning."""
    return _NAME.fullmatch(name) is not None and _TAKEN.fullmatch(name) is None


def checked_name(name: str) -> str:
    """The name, if it can be a client's (`is_key_name`).

    Raises:
        ConfigError: it cannot.
    """
    if is_key_name(name):
        return name
    problem = f"{name[:80]!r} cannot be the name of a key"
    if _TAKEN.fullmatch(name) is not None:
        raise ConfigError(f"{problem}: it means something else", "choose another name")
    raise ConfigError(problem, "use up to 64 letters, digits, '-', '_' and '.', first a letter or digit")


class KeyFolder:
    """The keys of one server; safe to use from several processes at once.

    Args:
        path: None for `default_key_folder()`. Made when the first key is.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_key_folder()

    @property
    def clients(self) -> Path:
        """Where the clients' public keys lie, `NAME.json` each."""
        return self.path / "clients"

    def server_keys(self) -> tuple[str, str]:
        """The server's public and secret key as Z85 text, made when there is none.

        Raises:
            ConfigError: the file is damaged, or it or its folder is open to other users.
            OutputError: it cannot be written.
        """
        make_private_folder(self.path)
        path = self.path / "server.json"
        if not path.exists():
            public, secret = _new_pair()
            try:
                write_private(path, {"public_key": public, "secret_key": secret}, replace=False)
            except FileExistsError:
                pass  # another server was faster, and its key is ours now
            else:
                return public, secret
        return _read_server_keys(path)

    def new(self, name: str, address: str = "", output: Path | None = None) -> dict[str, Any]:
        """Let in a new client. Its secret key is in the answer and in `output` only; the server keeps none.

        Args:
            name: of the client; one that was ever used cannot be used again.
            address: where it is to connect, "tcp://HOST:PORT"; "" leaves that to the client.
            output: the file to give to the client, mode 0600; None writes none.

        Returns:
            What the file holds: "focus_key", "name", "address", "server_key", "public_key", "secret_key".

        Raises:
            ConfigError: the name or address cannot be used, or the name was used before.
            OutputError: a file cannot be written, or `output` is there already.
        """
        checked_name(name)
        if address and not parse_address(address).can_be_called:
            raise ConfigError(f"clients cannot connect to {address!r}", "give the server's own host name or IP address, and its port")
        server_key = self.server_keys()[0]
        public, secret = _new_pair()
        make_private_folder(self.clients)
        entry = self.clients / f"{name}.json"
        try:
            write_private(entry, {"public_key": public, "created": _now(), "revoked": None}, replace=False)
        except FileExistsError as error:
            raise ConfigError(
                f"there is a key {name!r} already", "choose another name; those of revoked keys are not used again"
            ) from error
        content = {"focus_key": _KEY_FILE_VERSION, "name": name, "address": address}
        content |= {"server_key": server_key, "public_key": public, "secret_key": secret}
        if output is not None:
            try:
                write_client_file(output, content)
            except BaseException:
                # Nobody has this key: it must not stay let in.
                entry.unlink(missing_ok=True)
                raise
        return content

    def list(self) -> list[KeyEntry]:
        """All keys by name, revoked ones too.

        Raises:
            ConfigError: the folder or a file in it cannot be read, or is open to other users.
        """
        if not self.clients.exists():
            return []
        check_private_folder(self.path)
        check_private_folder(self.clients)
        try:
            names = sorted(path.stem for path in self.clients.iterdir() if path.suffix == ".json" and is_key_name(path.stem))
        except OSError as error:
            raise ConfigError(f"folder {self.clients} cannot be read ({error.strerror or error})", "make it readable") from error
        return [self.entry(name) for name in names]

    def entry(self, name: str) -> KeyEntry:
        """One key.

        Raises:
            ConfigError: there is none of that name, or its file is damaged.
        """
        path = self.clients / f"{checked_name(name)}.json"
        if not os.path.lexists(path):
            raise ConfigError(f"there is no key {name!r}", "see `focus-backend keys list`")
        try:
            return read_entry(path)
        except UnreadableFileError as error:
            raise ConfigError(f"key {error}", "remove that file; its key is not let in") from error

    def revoke(self, name: str) -> KeyEntry:
        """Let a client in no more; servers that run notice at its next message. Revoking twice keeps the first date.

        Raises:
            ConfigError: there is no such key, or its file is damaged.
            OutputError: it cannot be written.
        """
        entry = self.entry(name)
        if entry.revoked is not None:
            return entry
        revoked = KeyEntry(entry.name, entry.public_key, entry.created, _now())
        content = {"public_key": revoked.public_key, "created": revoked.created, "revoked": revoked.revoked}
        write_private(self.clients / f"{name}.json", content)
        return revoked


def read_entry(path: Path) -> KeyEntry:
    """The key in `clients/NAME.json`.

    Raises:
        UnreadableFileError: it is missing or damaged.
    """
    content = read_private(path)
    public_key = field_of(content, "public_key", is_curve_key, path)
    created = field_of(content, "created", is_text, path)
    # A file without it is damaged: nobody may be let in by an omission.
    if "revoked" not in content:
        raise UnreadableFileError(f"{path} is damaged: its field 'revoked' is missing")
    revoked = field_of(content, "revoked", lambda value: value is None or is_text(value), path)
    return KeyEntry(path.stem, public_key, created, revoked)


def write_client_file(path: Path, content: dict[str, Any]) -> None:
    """Write a client's key file, mode 0600; one that is there stays.

    Raises:
        OutputError: one is there, or the place cannot be written to.
    """
    try:
        write_private(path, content, replace=False)
    except FileExistsError as error:
        raise OutputError(f"{path} exists already", "choose another file for the key") from error


def read_client_file(path: Path) -> dict[str, str]:
    """The "name", "address" (may be ""), "server_key", "public_key" and "secret_key" of a client's key file.

    Raises:
        ServerError: it is missing, damaged, of another version, or others may read it.
    """
    import zmq

    try:
        content = read_private(path)
        version = field_of(content, "focus_key", lambda value: isinstance(value, int), path)
        if version != _KEY_FILE_VERSION:
            raise ServerError(f"key file {path} is of version {version}", "update FOCUS, or ask the server's owner for a new one")
        fields = {name: field_of(content, name, is_text, path) for name in ("name", "address")}
        fields |= {name: field_of(content, name, is_curve_key, path) for name in ("server_key", "public_key", "secret_key")}
    except UnreadableFileError as error:
        raise ServerError(f"key file {error}", "ask the server's owner for one, made with `focus-backend keys new`") from error
    if is_open_to_others(path):
        raise ServerError(f"key file {path} is open to other users of this machine", f"run: chmod 600 '{path}'")
    if zmq.curve_public(fields["secret_key"].encode()).decode() != fields["public_key"]:
        raise ServerError(f"key file {path} is damaged: its keys are no pair", "ask the server's owner for a new one")
    return fields


def _read_server_keys(path: Path) -> tuple[str, str]:
    import zmq

    remedy = "restore it from a backup; without it every client needs a new key file"
    try:
        content = read_private(path)
        public, secret = (field_of(content, name, is_curve_key, path) for name in ("public_key", "secret_key"))
    except UnreadableFileError as error:
        raise ConfigError(f"server key {error}", remedy) from error
    if is_open_to_others(path):
        raise ConfigError(f"server key {path} is open to other users of this machine", f"run: chmod 600 '{path}'")
    if zmq.curve_public(secret.encode()).decode() != public:
        raise ConfigError(f"server key {path} is damaged: its keys are no pair", remedy)
    return public, secret


def _new_pair() -> tuple[str, str]:
    import zmq

    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
