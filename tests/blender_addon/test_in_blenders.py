"""Runs `in_blender/` in every Blender there is as a module, each with its own Python, two at a time, on answers of a real server."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from addon_backend.odd_photos import write_odd_photos
from addon_backend.program import write_program
from focus_backend.errors import PhotoError
from focus_backend.photo import read_photo
from focus_backend.serving.client import Client
from scripts.environment import BLENDERS, ROOT, blender_python

pytestmark = pytest.mark.slow

_IN_BLENDER = Path(__file__).parent / "in_blender"
_PARTS = ("geometry", "texture", "masks", "albedo", "photo", "model", "identity")
_ASTRONAUT = ROOT / "docs" / "demo" / "astronaut.jpg"
# The Blender of the project's own environment, and the others.
_OWN = "5.0"
_VERSIONS = (_OWN, *BLENDERS)
# As modules, Blender 4.5 hangs and 4.2 crashes while Python ends once a timer was registered, without any add-on.
_PYTEST = "import os, sys, pytest; status = pytest.main(sys.argv[1:]); sys.stdout.flush(); os._exit(status)"
# Guards against hanging; a Blender that gets there has failed.
_PATIENCE = 1200


def _python_of(version: str) -> Path | str:
    """The Python that imports this Blender, or why there is none."""
    if version == _OWN:
        there = importlib.util.find_spec("bpy") is not None
        return Path(sys.executable) if there else "bpy is not installed: python scripts/test.py installs it where Python is 3.11"
    variable = f"FOCUS_BPY_{version.replace('.', '_')}"
    python = Path(os.environ.get(variable) or blender_python(version))
    if python.is_file():
        return python
    return f"{python} is missing: python scripts/test.py makes it with Python 3.11, or name a Python with bpy {version} in ${variable}"


def _backend() -> Path:
    """The command beside this Python."""
    name = "focus-backend.exe" if os.name == "nt" else "focus-backend"
    return Path(sys.executable).with_name(name)


def _photos(folder: Path) -> dict[str, Path]:
    """One face, and six of different sizes."""
    with Image.open(_ASTRONAUT) as opened:
        photo = opened.convert("RGB")
    group = Image.new("RGB", (3 * photo.width, 2 * photo.height))
    for place in range(6):
        face = ImageOps.scale(ImageOps.mirror(photo) if place % 2 else photo, 1 - 0.04 * place)
        group.paste(face, (place % 3 * photo.width, place // 3 * photo.height))
    group.save(folder / "group.png")
    return {"astronaut": _ASTRONAUT, "group": folder / "group.png"}


def _write_odd_photos(folder: Path) -> None:
    """Photos of every kind that the backend reads, and beside each what it sees there."""
    for path in write_odd_photos(folder).values():
        with contextlib.suppress(PhotoError):
            np.save(path.with_suffix(".npy"), read_photo(path).pixels)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a real server answered, as `in_blender/conftest.py` reads it."""
    folder = tmp_path_factory.mktemp("samples")
    _write_odd_photos(folder / "odd")
    ready = folder / "ready.json"
    command = [str(_backend()), "serve", "--ready-file", str(ready), "--parent-pid", str(os.getpid()), "--workers", "1"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert server.stdout is not None
        assert server.stdout.readline(), (folder / "server.log").read_text()
        with Client.connect(str(ready)) as client:
            for name, photo in _photos(folder).items():
                answer = client.reconstruct(photo, parts=_PARTS)
                arrays = {key.replace("/", "|"): answer.numpy(key) for key in answer.arrays}
                np.savez(folder / f"{name}.npz", **arrays)
                (folder / f"{name}.json").write_text(json.dumps(dataclasses.asdict(answer.message)), encoding="utf-8")
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()
    return folder


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension, built for this machine with the real wheels: downloaded once, or those in $FOCUS_WHEELS."""
    folder = tmp_path_factory.mktemp("extension")
    command = [sys.executable, str(ROOT / "scripts" / "build_extension.py"), "--out", str(folder), "--platform", "here"]
    offline = os.environ.get("FOCUS_WHEELS")
    done = subprocess.run([*command, "--wheels", offline] if offline else command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def _run(version: str, python: Path, samples: Path, archive: Path, private: Path) -> tuple[int, str]:
    """Exit status and everything that was said, in a Blender with settings of its own."""
    environment = os.environ | {
        "FOCUS_SAMPLES": str(samples),
        "FOCUS_BACKEND": str(_backend()),
        "FOCUS_BRIEF_BACKEND": str(write_program(private, "addon_backend.brief:load_brief", pipeline_config={"method": "fit"})),
        "FOCUS_EXTENSION_ZIP": str(archive),
        "BLENDER_USER_RESOURCES": str(private / "blender"),
        "OMP_NUM_THREADS": "1",
        # A folder of another Python's packages would hide that one of ours is missing.
        "PYTHONPATH": "",
    }
    command = [str(python), "-c", _PYTEST, "-c", str(_IN_BLENDER / "pytest.ini"), "-q", "--color=no", "--durations=10"]
    if version != _OWN:
        command += ["-m", "not newest"]
    # Where a test hangs, its stack is told before the whole run is given up.
    command += ["-o", f"faulthandler_timeout={_PATIENCE // 2}", f"--basetemp={private / 'pytest'}", str(_IN_BLENDER)]
    said = private / "said.txt"
    with said.open("wb") as output:
        try:
            status = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output, timeout=_PATIENCE).returncode
        except subprocess.TimeoutExpired:
            status = -1
    return status, said.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="session")
def runs(
    request: pytest.FixtureRequest, samples: Path, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[tuple[int, str]]]]:
    """The runs of the versions that this session asks for, under way."""
    asked = {item.callspec.params["version"] for item in request.session.items if item.path == Path(__file__)}
    with ThreadPoolExecutor(2) as pool:
        yield {
            version: pool.submit(_run, version, python, samples, archive, tmp_path_factory.mktemp(f"blender-{version}"))
            for version in _VERSIONS
            if version in asked and isinstance(python := _python_of(version), Path)
        }


@pytest.mark.parametrize("version", _VERSIONS)
def test_in_blender(version: str, request: pytest.FixtureRequest) -> None:
    python = _python_of(version)
    if isinstance(python, str):
        pytest.skip(python)
    status, said = request.getfixturevalue("runs")[version].result()
    print(said)
    if status != 0:
        how = f"exit status {status}" if status > 0 else f"it was ended by a signal, or after {_PATIENCE} s"
        pytest.fail(f"Blender {version}, {how}:\n{said}", pytrace=False)
