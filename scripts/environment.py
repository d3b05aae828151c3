"""The project's own virtual environment, made once with nothing but Python and its package index."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
_STAMP = ENVIRONMENT / "installed.txt"
# Blender as a module, for the add-on's tests in more than the version that `.venv` has.
BLENDERS = {"4.2": "4.2.23", "4.5": "4.5.15"}
_BLENDER_PACKAGES = ("numpy", "pyzmq", "pytest")
# The same files as opencv-contrib-python, built without the window system's libraries that bare servers and containers lack.
_OPENCV_WITHOUT_WINDOWS = "opencv-contrib-python-headless"


def prepare(extras: tuple[str, ...] = ()) -> Path:
    """Makes `.venv` and installs the project with `extras`, as pinned; does nothing when that was done before.

    Returns:
        The environment's Python.
    """
    if not (3, 10) <= sys.version_info < (3, 13):
        sys.exit(f"Python 3.10, 3.11 or 3.12 is needed; this is {sys.version.split()[0]}. Run this script with one of those.")
    python = _python_in(ENVIRONMENT)
    if _is_installed(extras):
        return python
    if not python.exists() or _python_of_stamp() not in ("", _python_version()):
        print(f"Making a virtual environment in {ENVIRONMENT} ...", flush=True)
        venv.create(ENVIRONMENT, with_pip=True, clear=ENVIRONMENT.exists())
    print("Installing what is pinned in constraints.txt; the first time this takes some minutes ...", flush=True)
    wanted = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    _pip(python, "-c", str(ROOT / "constraints.txt"), "-e", wanted)
    _make_opencv_load(python)
    _STAMP.write_text("\n".join([_python_version(), _digest(), *sorted(set(extras) | _extras_of_stamp())]))
    return python


def blender_python(version: str) -> Path:
    """The Python that `prepare_blender` makes for a version in `BLENDERS`, whether it is there or not."""
    return _python_in(ROOT / f".venv-bpy-{version}")


def prepare_blender(version: str) -> Path | None:
    """Makes `.venv-bpy-VERSION` with that Blender as a module and what the add-on's tests need; does nothing when that was done before.

    Returns:
        The environment's Python; None where this Blender cannot be installed, which is then said: its tests are skipped.
    """
    python = blender_python(version)
    stamp = python.parent.parent / "installed.txt"
    wanted = [f"bpy=={BLENDERS[version]}", *_blender_pins()]
    if stamp.exists() and stamp.read_text().splitlines() == wanted:
        return python
    if sys.version_info[:2] != (3, 11):
        print(f"Blender {version} as a module needs Python 3.11; this is {sys.version.split()[0]}. Its tests are skipped.", flush=True)
        return None
    print(f"Installing Blender {version} as a module in {stamp.parent}; the first time this takes some minutes ...", flush=True)
    venv.create(stamp.parent, with_pip=True, clear=True)
    # Linters walk through folders that git does not ignore.
    (stamp.parent / ".gitignore").write_text("*\n")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    if subprocess.run(command).returncode != 0:
        print(f"Blender {version} could not be installed; what pip said is above. Its tests are skipped.", flush=True)
        return None
    stamp.write_text("\n".join(wanted))
    return python


def run(python: Path, *arguments: str) -> int:
    """Runs the environment's Python in the project's folder and returns its exit status."""
    return subprocess.run([str(python), *arguments], cwd=ROOT).returncode


def _python_in(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _blender_pins() -> list[str]:
    """Of what stands beside Blender, as pinned for the project."""
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in pins if line.split("==")[0] in _BLENDER_PACKAGES]


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    if subprocess.run(command).returncode != 0:
        sys.exit("Installing failed; what pip said is above.")


def _make_opencv_load(python: Path) -> None:
    """Swaps OpenCV's build where the machine lacks the libraries that the usual one wants."""
    if subprocess.run([str(python), "-c", "import cv2"], capture_output=True).returncode == 0:
        return
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    version = next(line.split("==")[1] for line in pins if line.startswith("opencv-contrib-python=="))
    _pip(python, "--force-reinstall", "--no-deps", f"{_OPENCV_WITHOUT_WINDOWS}=={version}")


def _is_installed(extras: tuple[str, ...]) -> bool:
    lines = _stamp_lines()
    return lines[:2] == [_python_version(), _digest()] and set(extras) <= _extras_of_stamp()


def _stamp_lines() -> list[str]:
    return _STAMP.read_text().splitlines() if _STAMP.exists() else []


def _python_of_stamp() -> str:
    return next(iter(_stamp_lines()), "")


def _extras_of_stamp() -> set[str]:
    lines = _stamp_lines()
    return set(lines[2:]) if lines[1:2] == [_digest()] else set()


def _python_version() -> str:
    return f"Python {sys.version_info.major}.{sys.version_info.minor}"


def _digest() -> str:
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt", Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files) + str(ROOT).encode()).hexdigest()
