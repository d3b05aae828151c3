# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to a face model and to no photo: asked for once, then kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from .. import wire

# The arrays that make up a part, of which `model/expressions` alone has some ten megabytes.
MODEL_PARTS = {
    "model": ("model/quads", "model/quad_uv", "model/uv", "model/quad_in_face", "model/expressions"),
    "identity": ("model/identity",),
}
_NAMES = frozenset(name for names in MODEL_PARTS.values() for name in names)
_MOST_MODELS = 2


def missing_parts(arrays: Mapping[str, wire.Array], parts: Sequence[str]) -> list[str]:
    """Which of these parts are not whole among the arrays."""
    return [part for part in parts if not all(name in arrays for name in MODEL_PARTS[part])]


class KeptModels:
    """Arrays of the last few face models, by the hash of the model."""

    def __init__(self) -> None:
        self._arrays: OrderedDict[str, dict[str, wire.Array]] = OrderedDict()

    def missing(self, sha256: str, parts: Sequence[str]) -> list[str]:
        """Which of these parts are not kept. Of a model without a hash nothing is."""
        return missing_parts(self._arrays.get(sha256, {}), parts)

    def keep(self, sha256: str, arrays: Mapping[str, wire.Array]) -> None:
        """Takes a result's arrays of its model, if there are any."""
        found = {name: array for name, array in arrays.items() if name in _NAMES}
        if not found or not sha256:
            return
        self._arrays.setdefault(sha256, {}).update(found)
        self._arrays.move_to_end(sha256)
        while len(self._arrays) > _MOST_MODELS:
            self._arrays.popitem(last=False)

    def forget(self, sha256: str) -> None:
        """Gives a model up, so that it is asked for anew."""
        self._arrays.pop(sha256, None)

    def with_model(self, sha256: str, arrays: Mapping[str, wire.Array]) -> dict[str, wire.Array]:
        """A result's arrays together with those that are kept of its model."""
        return {**self._arrays.get(sha256, {}), **arrays}
