# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that appear whole or not at all: they are written into a hidden folder beside, then moved."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import AddonError


class Destination:
    """Where one exported file and what belongs to it are to go.

    Attributes:
        path: of the file.
        overwrite: replace what is there.
        written: the files, once they are there; the exported one first.
    """

    def __init__(self, path: Path, overwrite: bool) -> None:
        self.path = path
        self.overwrite = overwrite
        self.written: list[Path] = []

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder to write into, under the same names; its files are moved when all went well.

        Raises:
            AddonError: the place cannot be written to, or a file is there already.
        """
        self.check_free()
        staging: Path | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".focus-export-", dir=self.path.parent))
            yield staging
            self._move(staging)
        except OSError as error:
            raise not_written(self.path, error.strerror or str(error)) from error
        finally:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)

    def check_free(self) -> None:
        """Checks that the exported file may be written.

        Raises:
            AddonError: it is there already, or is a folder.
        """
        self._check_free([self.path])

    def _check_free(self, paths: list[Path]) -> None:
        for path in paths:
            if path.is_dir():
                raise AddonError(f"{path} is a folder", "choose another name for the file", "output")
            if path.exists() and not self.overwrite:
                raise AddonError(f"{path} exists", "choose another name, or allow overwriting", "exists")

    def _move(self, staging: Path) -> None:
        """The exported file last: once it is there, so are the pictures that it names."""
        found = (file.relative_to(staging) for file in staging.rglob("*") if file.is_file())
        names = sorted(found, key=lambda name: name != Path(self.path.name))
        targets = [self.path.parent / name for name in names]
        self._check_free(targets)
        new = [target for target in targets if not target.exists()]
        try:
            for name, target in reversed(list(zip(names, targets, strict=True))):
                target.parent.mkdir(parents=True, exist_ok=True)
                (staging / name).chmod(0o644)
                (staging / name).replace(target)
        except OSError:
            for target in new:
                target.unlink(missing_ok=True)
            raise
        self.written = targets


def not_written(path: Path, reason: str) -> AddonError:
    """The error of a file that could not be written."""
    return AddonError(f"{path} could not be written ({reason})", "choose another folder, or make room on the disk", "output")
