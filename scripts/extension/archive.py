"""One zip for a platform of Blender: the add-on's files, the wire format's copy, wheels, licences and the finished manifest."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import BuildError
from .toml_file import parse_toml, read_toml
from .wheels import Wheel

ROOT = Path(__file__).resolve().parents[2]
ADDON = ROOT / "blender_addon"
MANIFEST = "blender_manifest.toml"
_WIRE = ROOT / "focus_backend" / "serving" / "wire.py"
_SUFFIXES = {".py", ".png", ".svg", ".json"}
# Zip files cannot say "no time"; the earliest there is makes two builds of the same files the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)
_WIRE_HEAD = """\
# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: Apache-2.0
# A copy of focus_backend/serving/wire.py; the licence is licenses/Apache-2.0.txt.
"""


def extension_files(platform: str, wheels: Mapping[Wheel, Path], addon: Path = ADDON) -> dict[str, bytes]:
    """Every file of the extension for `platform`, by its name in the zip, in alphabetical order.

    Args:
        platform: of Blender.
        wheels: where the files of this platform's wheels lie.
        addon: the folder of the add-on's source.

    Raises:
        BuildError: a file is missing or cannot be read.
    """
    try:
        files = {
            **_addon_files(addon),
            "wire.py": (_WIRE_HEAD + _WIRE.read_text(encoding="utf-8")).encode(),
            "licenses/Apache-2.0.txt": (ROOT / "LICENSE").read_bytes(),
            "licenses/NOTICE.txt": (ROOT / "NOTICE").read_bytes(),
            "LICENSE": (addon / "LICENSE").read_bytes(),
        }
        for wheel, path in wheels.items():
            files[f"wheels/{wheel.extension_name}"] = path.read_bytes()
            files.update(_licences(wheel, path))
        manifest = (addon / MANIFEST).read_text(encoding="utf-8")
    except (OSError, zipfile.BadZipFile) as error:
        raise BuildError(f"A file of the extension cannot be read: {error}") from error
    names = sorted(name for name in files if name.startswith("wheels/"))
    files[MANIFEST] = _finished_manifest(manifest, platform, names).encode()
    return dict(sorted(files.items()))


def read_manifest(addon: Path = ADDON) -> dict[str, Any]:
    """The manifest as it stands beside the source.

    Raises:
        BuildError: it cannot be read.
    """
    return read_toml(addon / MANIFEST)


def archive_name(manifest: Mapping[str, Any], platform: str) -> str:
    """The zip's file name, as Blender's own builder would choose it."""
    return f"{manifest['id']}-{manifest['version']}-{platform.replace('-', '_')}.zip"


def pack(files: Mapping[str, bytes]) -> bytes:
    """A zip of `files` that depends on nothing but names and content."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _TIME)
            # Unix, whatever the machine: without it the zip would differ between systems.
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            # Wheels are zip files themselves.
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".whl") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content, compresslevel=9)
    return packed.getvalue()


def sha256_of(content: bytes) -> str:
    """Hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _addon_files(addon: Path) -> dict[str, bytes]:
    paths = [path for path in addon.rglob("*") if path.is_file() and path.suffix in _SUFFIXES]
    names = {path: path.relative_to(addon).as_posix() for path in paths}
    hidden = {path for path, name in names.items() if any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))}
    return {name: path.read_bytes() for path, name in names.items() if path not in hidden}


def _licences(wheel: Wheel, path: Path) -> dict[str, bytes]:
    """The licence texts inside a wheel; every wheel of a package has the same, up to line endings."""
    with zipfile.ZipFile(path) as archive:
        inside = [name for name in archive.namelist() if ".dist-info/licenses/" in name and not name.endswith("/")]
        texts = {f"licenses/{wheel.package}/{Path(name).name}": archive.read(name).replace(b"\r\n", b"\n") for name in inside}
    if not texts:
        raise BuildError(f"{path} has no licence inside: pin a wheel that has")
    return texts


def _finished_manifest(manifest: str, platform: str, wheels: Sequence[str]) -> str:
    """The manifest with the lines that only the build knows, before its first table."""
    listed = "".join(f"    {json.dumps('./' + name)},\n" for name in wheels)
    lines = f"platforms = [{json.dumps(platform)}]\nwheels = [\n{listed}]\n\n"
    head, bracket, tables = manifest.partition("\n[")
    finished = f"{head.rstrip()}\n{lines}{bracket.lstrip()}{tables}"
    found = parse_toml(finished, MANIFEST)
    if found.get("platforms") != [platform] or len(found.get("wheels", ())) != len(wheels):
        raise BuildError(f"{MANIFEST} must not have platforms or wheels in a table: move them out")
    return finished
