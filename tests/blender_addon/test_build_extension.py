"""The extension's zips and their repository, judged by Blender's own tools where those are installed."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from scripts.environment import ROOT
from scripts.extension.archive import ADDON, MANIFEST
from scripts.extension.build import build
from scripts.extension.errors import BuildError
from scripts.extension.repository import python_versions
from scripts.extension.toml_file import parse_toml
from scripts.extension.wheels import Wheel, find_wheel, platform_here, read_lock

_PLATFORMS = ("linux-arm64", "linux-x64", "macos-arm64", "macos-x64", "windows-arm64", "windows-x64")
_LICENCE = "Redistribution is permitted.\r\n"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with small wheels for every platform, and `wheels.toml` that pins them."""
    folder = tmp_path / "wheels here"
    folder.mkdir()
    lines = ['package = "pyzmq"', 'version = "1.2.3"']
    for entry in read_lock():
        tags = "-".join(entry.tags)
        file = folder / f"pyzmq-1.2.3-{tags}.whl"
        with zipfile.ZipFile(file, "w") as wheel:
            wheel.writestr("zmq/__init__.py", f"tags = {tags!r}\n")
            wheel.writestr("pyzmq-1.2.3.dist-info/licenses/LICENSE.md", _LICENCE)
            wheel.writestr("pyzmq-1.2.3.dist-info/licenses/licenses/LICENSE.zeromq.txt", "MPL")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        lines += ["[[wheel]]", f'file = "{file.name}"', f'sha256 = "{digest}"']
        lines += [f"platforms = {json.dumps(entry.platforms)}", f"pythons = {json.dumps(entry.pythons)}"]
    (folder / "wheels.toml").write_text("\n".join(lines))
    return folder


def _build(out: Path, wheels: Path, *platforms: str, address: str = "") -> list[Path]:
    return build(out, platforms, address, wheels, wheels / "wheels.toml")


def _manifest(archive: Path) -> dict[str, Any]:
    with zipfile.ZipFile(archive) as opened:
        return parse_toml(opened.read(MANIFEST).decode(), MANIFEST)


def _blender_tool() -> tuple[Path, Path]:
    """Blender's program for extensions and its list of tags."""
    found = importlib.util.find_spec("bpy")
    if found is None or found.origin is None:
        pytest.skip("bpy is not installed, whose program judges extensions: python scripts/test.py installs it where Python is 3.11")
    scripts = next(Path(found.origin).parent.glob("[0-9]*/scripts"))
    return scripts / "addons_core/bl_pkg/cli/blender_ext.py", scripts / "modules/_bpy_internal/extensions/tags.py"


def test_lock_covers_every_platform_and_python_of_blender() -> None:
    served = {(platform, python) for wheel in read_lock() for platform in wheel.platforms for python in wheel.pythons}

    assert served == {(platform, python) for platform in _PLATFORMS for python in ("3.11", "3.12", "3.13", "3.14")}
    assert len({wheel.sha256 for wheel in read_lock()}) == len(read_lock())


def test_every_platform_gets_its_own_wheels(tmp_path: Path, wheels: Path) -> None:
    archives = _build(tmp_path / "out", wheels)

    assert [archive.name for archive in archives] == [f"focus_face-0.1.0-{name.replace('-', '_')}.zip" for name in _PLATFORMS]
    for archive, platform in zip(archives, _PLATFORMS, strict=True):
        manifest = _manifest(archive)
        assert manifest["platforms"] == [platform]
        assert manifest["permissions"].keys() == {"files", "network"}
        with zipfile.ZipFile(archive) as opened:
            inside = {f"./{name}" for name in opened.namelist() if name.endswith(".whl")}
        assert len(inside) == 2
        assert set(manifest["wheels"]) == inside
        assert python_versions(manifest["wheels"]) == ["3.11", "3.12", "3.13", "3.14"]


def test_blender_accepts_the_archives_and_the_source(tmp_path: Path, wheels: Path) -> None:
    program, tags = _blender_tool()

    for judged in [*_build(tmp_path / "out", wheels), ADDON]:
        done = subprocess.run(
            [sys.executable, str(program), "validate", "--valid-tags", str(tags), str(judged)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Success" in done.stdout


def test_index_is_the_one_that_blender_writes(tmp_path: Path, wheels: Path) -> None:
    program, _ = _blender_tool()
    out = tmp_path / "out"
    _build(out, wheels)
    ours = json.loads((out / "index.json").read_text())

    done = subprocess.run([sys.executable, str(program), "server-generate", "--repo-dir", str(out)], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "duplicates" not in done.stdout + done.stderr
    blenders = json.loads((out / "index.json").read_text())
    # Blender lists files in the order of the folder.
    assert ours == blenders | {"data": sorted(blenders["data"], key=lambda entry: entry["archive_url"])}
    assert len(ours["data"]) == len(_PLATFORMS)


def test_index_tells_size_hash_and_address(tmp_path: Path, wheels: Path) -> None:
    [archive] = _build(tmp_path / "out", wheels, "macos-arm64", address="https://example.org/focus/")

    [entry] = json.loads((tmp_path / "out" / "index.json").read_text())["data"]

    assert entry["archive_url"] == "https://example.org/focus/focus_face-0.1.0-macos_arm64.zip"
    assert entry["archive_size"] == archive.stat().st_size
    assert entry["archive_hash"] == "sha256:" + hashlib.sha256(archive.read_bytes()).hexdigest()
    assert "wheels" not in entry
    page = (tmp_path / "out" / "index.html").read_text()
    assert "focus_face-0.1.0-macos_arm64.zip?repository=https%3A%2F%2Fexample.org%2Ffocus%2Findex.json&amp;" in page


def test_index_keeps_platforms_that_were_built_before(tmp_path: Path, wheels: Path) -> None:
    _build(tmp_path, wheels, "linux-x64")
    _build(tmp_path, wheels, "windows-x64")

    entries = json.loads((tmp_path / "index.json").read_text())["data"]

    assert [entry["platforms"] for entry in entries] == [["linux-x64"], ["windows-x64"]]


def test_same_files_make_the_same_bytes(tmp_path: Path, wheels: Path) -> None:
    [first] = _build(tmp_path / "a", wheels, "linux-x64")
    [second] = _build(tmp_path / "b", wheels, "linux-x64")

    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as opened:
        assert opened.namelist() == sorted(opened.namelist())
        assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_archive_holds_the_addon_and_nothing_else(tmp_path: Path, wheels: Path) -> None:
    [archive] = _build(tmp_path, wheels, "linux-x64")

    with zipfile.ZipFile(archive) as opened:
        names = set(opened.namelist())
        sources = {name: opened.read(name).decode() for name in names if name.endswith(".py")}
        assert opened.read("licenses/pyzmq/LICENSE.md").decode() == _LICENCE.replace("\r\n", "\n")
    expected = {path.relative_to(ADDON).as_posix() for path in ADDON.rglob("*.py") if "__pycache__" not in path.parts}
    assert expected | {"wire.py"} == sources.keys()
    licences = {f"licenses/{name}" for name in ("Apache-2.0.txt", "NOTICE.txt", "pyzmq/LICENSE.md", "pyzmq/LICENSE.zeromq.txt")}
    assert {name for name in names - sources.keys() if not name.endswith(".whl")} == {"LICENSE", MANIFEST, *licences}
    for name, source in sources.items():
        # Blender 4.2 has Python 3.11.
        ast.parse(source, name, feature_version=(3, 11))


def test_wire_format_is_the_backends_with_its_licence(tmp_path: Path, wheels: Path) -> None:
    [archive] = _build(tmp_path, wheels, "linux-x64")

    with zipfile.ZipFile(archive) as opened:
        copy = opened.read("wire.py").decode()

    assert "SPDX-License-Identifier: Apache-2.0" in copy.splitlines()[1]
    assert copy.endswith((ROOT / "focus_backend" / "serving" / "wire.py").read_text(encoding="utf-8"))


def test_extension_runs_without_the_backend() -> None:
    forbidden = {"focus_backend", "train", "torch", "PIL", "scipy"}

    for path in ADDON.rglob("*.py"):
        imported = {name.split(".")[0] for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for name in _imported(node)}
        assert not imported & forbidden, path


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [node.module or ""]
    return []


def test_changed_wheel_is_refused(tmp_path: Path, wheels: Path) -> None:
    changed = next(wheels.glob("*win_amd64.whl"))
    changed.write_bytes(changed.read_bytes() + b"x")

    with pytest.raises(BuildError, match=r"win_amd64\.whl is not the pinned file .* delete it"):
        _build(tmp_path / "out", wheels, "windows-x64")


def test_missing_wheel_is_named(tmp_path: Path, wheels: Path) -> None:
    next(wheels.glob("*cp312*win_arm64.whl")).unlink()

    with pytest.raises(BuildError, match=r"cp312-abi3-win_arm64\.whl is missing: .*--wheels"):
        _build(tmp_path / "out", wheels, "windows-arm64")


def test_failed_download_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    wheel = Wheel("pyzmq", "0.0.1", "pyzmq-0.0.1-cp311-cp311-win_amd64.whl", "0" * 64, ("windows-x64",), ("3.11",))

    with pytest.raises(BuildError, match=r"pyzmq-0\.0\.1-cp311-cp311-win_amd64\.whl could not be downloaded .*pyzmq==0\.0\.1"):
        find_wheel(wheel, tmp_path / "downloads", may_download=True)


def test_wheel_without_licence_is_refused(tmp_path: Path, wheels: Path) -> None:
    bare = next(wheels.glob("*cp311*win_arm64.whl"))
    with zipfile.ZipFile(bare, "w") as wheel:
        wheel.writestr("zmq/__init__.py", "")
    lock = wheels / "wheels.toml"
    before = next(entry for entry in read_lock(lock) if entry.file == bare.name)
    lock.write_text(lock.read_text().replace(before.sha256, hashlib.sha256(bare.read_bytes()).hexdigest()))

    with pytest.raises(BuildError, match="no licence inside"):
        _build(tmp_path / "out", wheels, "windows-arm64")


def test_unknown_platform_is_refused(tmp_path: Path, wheels: Path) -> None:
    with pytest.raises(BuildError, match="no wheels for solaris-x64: choose among linux-arm64"):
        _build(tmp_path, wheels, "linux-x64", "solaris-x64")


def test_lock_that_lacks_an_entry_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "wheels.toml"
    lock.write_text('package = "pyzmq"\nversion = "1"\n[[wheel]]\nfile = "a-1-cp311-cp311-win_amd64.whl"\n')

    with pytest.raises(BuildError, match="lacks an entry: 'sha256'"):
        read_lock(lock)


def test_command_reports_errors_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "build_extension.py"), "--out", str(tmp_path / "out")]

    done = subprocess.run([*command, "--wheels", str(tmp_path), "--platform", "here"], capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is missing" in done.stderr


def test_this_machine_has_wheels() -> None:
    assert any(platform_here() in wheel.platforms for wheel in read_lock())
