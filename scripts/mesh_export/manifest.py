"""A small JSON file beside a photo's meshes: of which photo they are, how they were made, and which files they are."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .arguments import Arguments
from .outcome import FaceFiles

_KIND, _VERSION = "focus-meshes", 1


def manifest_path(out: Path, name: str) -> Path:
    """Where a photo's manifest lies."""
    return out / f"{name}.focus.json"


def is_done(out: Path, name: str, sha256: str | None, arguments: Arguments) -> bool:
    """Whether the files of this very photo are there, in all formats and made with these options."""
    told = read_manifest(out, name)
    if sha256 is None or told.get("sha256") != sha256 or told.get("settings") != _plain(arguments.settings()):
        return False
    try:
        files = [face["files"][name] for face in told["faces"] for name in arguments.formats]
        return bool(files) and all((out / file).is_file() for group in files for file in group)
    except (KeyError, TypeError):
        return False


def read_manifest(out: Path, name: str) -> dict[str, Any]:
    """What the manifest says; nothing where there is none of ours."""
    try:
        told = json.loads(manifest_path(out, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) and told.get("kind") == _KIND and told.get("version") == _VERSION else {}


def write_manifest(out: Path, name: str, photo: Path, sha256: str | None, arguments: Arguments, faces: Sequence[FaceFiles]) -> None:
    """Writes it whole or not at all; without a hash and faces it says that the photo's files are being written.

    Formats of an earlier run with the same photo and options stay listed.
    """
    older = read_manifest(out, name)
    settings = _plain(arguments.settings())
    listed = [asdict(face) for face in faces]
    if older.get("sha256") == sha256 and older.get("settings") == settings and len(older.get("faces", [])) == len(listed):
        for face, before in zip(listed, older["faces"], strict=True):
            face["files"] = {**before.get("files", {}), **face["files"]}
    told = {"kind": _KIND, "version": _VERSION, "photo": photo.name, "sha256": sha256, "settings": settings, "faces": listed}
    write_json(manifest_path(out, name), told)


def write_json(path: Path, told: dict[str, Any]) -> None:
    """Beside, then renamed: a kill leaves the file as it was.

    Raises:
        OSError: the place cannot be written to.
    """
    handle, hidden = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            # ASCII, so that half a surrogate in a file name stays what it is.
            file.write(json.dumps(told, indent=1) + "\n")
        Path(hidden).chmod(0o644)
        Path(hidden).replace(path)
    except BaseException:
        Path(hidden).unlink(missing_ok=True)
        raise


def _plain(settings: dict[str, object]) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(settings))
