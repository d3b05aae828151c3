# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server's answer holds, checked before anything is made of it: a wrong index or size would end Blender, not raise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from ..errors import AddonError

if TYPE_CHECKING:
    from .. import wire

REMEDY = "use an extension and a backend of the same FOCUS version"
# No face is a kilometre (in mm) wide, and no photo so many pixels; products of much larger numbers are not finite any more.
LARGEST_VALUE = 1e6
LARGEST_NUMBER = 1e9


def read_array(arrays: Mapping[str, wire.Array], name: str, dtype: str, shape: tuple[int | None, ...]) -> ndarray:
    """The array of a name, a read-only view of its bytes.

    Args:
        arrays: of the answer.
        name: such as "face0/neutral".
        dtype: that it has to have.
        shape: that it has to have; None for any size but none.

    Raises:
        AddonError: it is missing, of another type or shape, not finite, or beyond `LARGEST_VALUE`; code "answer".
    """
    if name not in arrays:
        raise unusable(f"has no array {name}")
    array = arrays[name]
    if array.dtype != dtype or not _fits(array.shape, shape):
        raise unusable(f"has an array {name} of {array.dtype} {tuple(array.shape)}")
    values = np.frombuffer(array.data, np.dtype(dtype).newbyteorder("<")).reshape(array.shape)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise unusable(f"has an array {name} with values that are not finite")
    if values.dtype.kind == "f" and (np.abs(values) > LARGEST_VALUE).any():
        raise unusable(f"has an array {name} with values beyond {LARGEST_VALUE:g}")
    return values


def _fits(given: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(given) == len(wanted) and all(size == want or (want is None and size) for size, want in zip(given, wanted, strict=True))


def read_indices(arrays: Mapping[str, wire.Array], name: str, shape: tuple[int | None, ...], count: int) -> ndarray:
    """Corners of quads, as `read_array`.

    Args:
        arrays, name, shape: as in `read_array`.
        count: of what they point at; only the last of four may be -1.

    Raises:
        AddonError: as in `read_array`, or one points at nothing.
    """
    values = read_array(arrays, name, "int32", shape)
    lowest = np.array([0, 0, 0, -1])
    if (values < lowest).any() or (values >= count).any():
        raise unusable(f"has an array {name} that points beyond its {count} targets")
    return values


def read_member(document: Mapping[str, Any], path: str) -> Any:
    """A member of a face's document.

    Args:
        document: what `result.json` holds.
        path: with dots, such as "camera.rotation".

    Raises:
        AddonError: there is none; code "answer".
    """
    value: Any = document
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise unusable(f"has no {path} in its document")
        value = value[key]
    return value


def read_numbers(document: Mapping[str, Any], path: str, shape: tuple[int, ...]) -> ndarray:
    """Numbers of a face's document as float64; see `read_member`.

    Raises:
        AddonError: they are missing, of another shape, not finite, or beyond `LARGEST_NUMBER`; code "answer".
    """
    try:
        values = np.array(read_member(document, path), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise unusable(f"has no numbers in {path} of its document") from None
    if values.shape != shape or not (np.abs(values) <= LARGEST_NUMBER).all():
        raise unusable(f"has other numbers in {path} of its document than {shape} finite ones")
    return values


def read_count(document: Mapping[str, Any], path: str) -> int:
    """A whole number from 1 to 2^31 - 1 of a face's document; see `read_member`.

    Raises:
        AddonError: it is missing or another; code "answer".
    """
    value = float(read_numbers(document, path, ()))
    if not 1 <= value < 2**31 or not math.isclose(value, round(value)):
        raise unusable(f"has {value:g} as {path} of its document")
    return round(value)


def unusable(what: str) -> AddonError:
    """The error for an answer that `what`."""
    return AddonError(f"the backend's answer {what}", REMEDY, "answer")
