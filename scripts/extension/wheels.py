"""The pinned wheels that the extension carries: downloaded once, and taken only when their SHA-256 is the pinned one."""

from __future__ import annotations

import hashlib
import platform as machine
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError
from .toml_file import read_toml

LOCK = Path(__file__).with_name("wheels.toml")
_SYSTEMS = {"darwin": "macos"}
_PROCESSORS = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel.

    Attributes:
        package, version: as the package index names them.
        file: its file name there.
        sha256: of the file, hexadecimal.
        platforms: of Blender, such as "linux-x64".
        pythons: the versions that it serves, such as "3.13".
    """

    package: str
    version: str
    file: str
    sha256: str
    platforms: tuple[str, ...]
    pythons: tuple[str, ...]

    @property
    def tags(self) -> tuple[str, str, str]:
        """Python, ABI and platform, from the file name."""
        python, abi, platform = self.file.removesuffix(".whl").split("-")[-3:]
        return python, abi, platform

    @property
    def extension_name(self) -> str:
        """The file name inside the extension, which lists every Python version the wheel serves.

        Blender reads from a tag "abi3" no more than "Python 3", and forgets that again beside a wheel for 3.11: without the list it
        refuses the extension under every Python but 3.11.
        """
        _, _, platform = self.tags
        pythons = ".".join("cp" + version.replace(".", "") for version in self.pythons)
        return f"{self.package}-{self.version}-{pythons}-none-{platform}.whl"


def read_lock(path: Path = LOCK) -> list[Wheel]:
    """The pinned wheels, in the order of the file.

    Raises:
        BuildError: the file cannot be read, or lacks an entry.
    """
    document = read_toml(path)
    try:
        package, version = document["package"], document["version"]
        return [
            Wheel(package, version, entry["file"], entry["sha256"], tuple(entry["platforms"]), tuple(entry["pythons"]))
            for entry in document["wheel"]
        ]
    except (KeyError, TypeError) as error:
        raise BuildError(f"{path} lacks an entry: {error}") from error


def platforms_of(wheels: list[Wheel]) -> list[str]:
    """Every platform that some wheel serves, in alphabetical order."""
    return sorted({platform for wheel in wheels for platform in wheel.platforms})


def platform_here() -> str:
    """This machine, in Blender's words."""
    system, processor = machine.system().lower(), machine.machine().lower()
    return f"{_SYSTEMS.get(system, system)}-{_PROCESSORS.get(processor, processor)}"


def find_wheel(wheel: Wheel, folder: Path, may_download: bool) -> Path:
    """The wheel's file in `folder`, downloaded there when it is missing and `may_download` says so.

    Raises:
        BuildError: it is not there, cannot be downloaded, or is not the pinned file.
    """
    path = folder / wheel.file
    if not path.is_file():
        if not may_download:
            raise BuildError(f"{path} is missing: put it there, or leave out --wheels to have it downloaded")
        _download(wheel, folder)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != wheel.sha256:
        raise BuildError(f"{path} is not the pinned file (SHA-256 {found}, pinned {wheel.sha256}): delete it and build again")
    return path


def _download(wheel: Wheel, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    python, abi, platform = wheel.tags
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", python.removeprefix("cp"), "--abi", abi]
    # A wheel with several platform tags answers to each of them; the last is the newest.
    command += ["--platform", platform.split(".")[-1], "--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 or not (folder / wheel.file).is_file():
        said = (done.stderr.strip().splitlines() or ["another file came"])[-1]
        raise BuildError(f"{wheel.file} could not be downloaded ({said}): check the network, or name a folder that has it with --wheels")
