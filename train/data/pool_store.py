"""Where drawn faces are kept: a file a field, mapped into memory, so that many fit and a stopped run draws no face twice."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from focus_backend.errors import OutputError
from focus_backend.files import write_whole

_STATE, _SUFFIX = "pool.json", ".npy"


class PoolStore:
    """Room for `count` faces, filled from the first on.

    Args:
        folder: keeps the faces from one stage, and one run, to the next; None for none.
        key: what the faces depend on; those of another key are thrown away.
        count: how many faces there will be.

    Attributes:
        filled: how many faces there are.

    Raises:
        OutputError: the folder cannot be used.
    """

    def __init__(self, folder: Path | None, key: str, count: int) -> None:
        self.filled = 0
        self._folder, self._count, self._wanted = folder, count, {"key": key, "count": count}
        self._arrays: dict[str, np.ndarray] = {}
        if folder is not None and not self._open(folder):
            try:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            except OSError as error:
                raise _unwritable(folder, error) from error

    def add(self, chunk: Mapping[str, Tensor]) -> None:
        """The next faces, field by field; those too many are left out.

        Raises:
            OutputError: there is no room on the disk.
        """
        try:
            if not self._arrays:
                self._make_all(chunk)
            end = min(self._count, self.filled + len(next(iter(chunk.values()))))
            for name, value in chunk.items():
                self._arrays[name][self.filled : end] = value.numpy()[: end - self.filled]
            self.filled = end
            self._keep()
        except OSError as error:
            assert self._folder is not None
            raise _unwritable(self._folder, error) from error

    def tensors(self) -> dict[str, Tensor]:
        """The fields of all faces."""
        return {name: torch.from_numpy(array) for name, array in self._arrays.items()}

    def _make_all(self, chunk: Mapping[str, Tensor]) -> None:
        try:
            self._arrays = {name: self._make(name, value.numpy()) for name, value in chunk.items()}
        except OSError:
            # Files without faces would keep a full disk full.
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def _make(self, name: str, like: np.ndarray) -> np.ndarray:
        shape = (self._count, *like.shape[1:])
        if self._folder is None:
            return np.empty(shape, like.dtype)
        path = self._folder / f"{name}{_SUFFIX}"
        array = np.lib.format.open_memmap(path, "w+", like.dtype, shape)
        if hasattr(os, "posix_fallocate"):
            # A mapped file that finds the disk full later would end the process.
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array

    def _keep(self) -> None:
        if self._folder is None:
            return
        for array in self._arrays.values():
            assert isinstance(array, np.memmap)
            array.flush()
        state = {**self._wanted, "filled": self.filled, "fields": sorted(self._arrays)}
        write_whole(self._folder / _STATE, json.dumps(state).encode())

    def _open(self, folder: Path) -> bool:
        """Goes on with the faces of the folder; whether they can be used."""
        try:
            state: dict[str, Any] = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            if any(state[name] != value for name, value in self._wanted.items()):
                return False
            arrays = {str(name): _mapped(folder / f"{name}{_SUFFIX}") for name in state["fields"]}
            filled = int(state["filled"])
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return False
        if not arrays or not 0 < filled <= self._count or any(len(array) != self._count for array in arrays.values()):
            return False
        self._arrays, self.filled = arrays, filled
        return True


def _mapped(path: Path) -> np.ndarray:
    """The array of a file, to be gone on with.

    Raises:
        EOFError, OSError, ValueError: it is none, or was cut off.
    """
    # Opened for writing, a file that was cut off would be made longer without a word.
    np.load(path, mmap_mode="r")
    return np.load(path, mmap_mode="r+")


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"{folder} cannot be written ({error.strerror or error})", "free some space, or choose another place")
