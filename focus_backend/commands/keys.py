"""`focus-backend keys`: who may use the server from other machines."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from focus_backend.serving.keys import KeyFolder, checked_name


def new_key(name: str, output: Path | None, address: str, keys: Path | None) -> None:
    """Let a client in and write its key file, `NAME.key` here by default.

    Raises:
        ConfigError: the name or address cannot be used, or the name was used before.
        OutputError: a file cannot be written, or `output` is there already.
    """
    # Before it becomes part of a path.
    path = output or Path(f"{checked_name(name)}.key")
    KeyFolder(keys).new(name, address, path)
    print(path)


def list_keys(keys: Path | None, as_json: bool) -> None:
    """Print all keys, revoked ones too.

    Raises:
        ConfigError: the key folder or a file in it cannot be read.
    """
    folder = KeyFolder(keys)
    entries = folder.list()
    if as_json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries]))
        return
    if not entries:
        print(f"no keys in {folder.path}")
        return
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        state = f"revoked {entry.revoked}" if entry.revoked else "let in"
        print(f"{entry.name:{width}}  {entry.public_key}  made {entry.created}  {state}")


def revoke_key(name: str, keys: Path | None) -> None:
    """Let a client in no more.

    Raises:
        ConfigError: there is no such key.
        OutputError: it cannot be written.
    """
    entry = KeyFolder(keys).revoke(name)
    print(f"{entry.name}: revoked {entry.revoked}")
