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
# The same files as opencv-contrib-python, built without the window system's libraries that bare servers and containers lack.
_OPENCV_WITHOUT_WINDOWS = "opencv-contrib-python-headless"


def prepare(extras: tuple[str, ...] = ()) -> Path:
    """Makes `.venv` and installs the project with `extras`, as pinned; does nothing when that was done before.

    Returns:
        The environment's Python.
    """
    if not (3, 10) <= sys.version_info < (3, 13):
        sys.exit(f"Python 3.10, 3.11 or 3.12 is needed; this is {sys.version.split()[0]}. Run this script with one of those.")
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
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


def run(python: Path, *arguments: str) -> int:
    """Runs the environment's Python in the project's folder and returns its exit status."""
    return subprocess.run([str(python), *arguments], cwd=ROOT).returncode


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
