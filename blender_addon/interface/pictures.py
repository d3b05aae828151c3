# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thumbnail of the chosen photo and previews of those under way, as icons."""

from __future__ import annotations

from pathlib import Path

import bpy
import bpy.utils.previews
import numpy as np
from numpy import ndarray

from ..shapes import UInt8

PREVIEW_SIDE = 128


class Pictures:
    """Icons that panels draw. Blender reads photos for thumbnails by itself, when an icon is first drawn, in a thread of its own."""

    def __init__(self) -> None:
        self._icons: bpy.utils.previews.ImagePreviewCollection | None = None
        self._thumbnail = ""
        # The picture that each job's preview shows, to see whether there is a new one.
        self._shown: dict[int, ndarray] = {}

    def choose_thumbnail(self, photo: str) -> None:
        """Makes this photo the one with the thumbnail; "" for none."""
        if bpy.app.background:
            return
        self._remove(self._thumbnail)
        self._thumbnail = ""
        path = Path(bpy.path.abspath(photo)) if photo else None
        if path is not None and path.is_file():
            self._thumbnail = f"photo {path}"
            self._collection().load(self._thumbnail, str(path), "IMAGE")

    def thumbnail_icon(self) -> int:
        """Icon of the chosen photo; 0 without."""
        return self._icon(self._thumbnail)

    def show_preview(self, number: int, picture: UInt8[ndarray, "height width 3"]) -> None:
        """Makes this the preview of a job; nothing to do where it is already."""
        if bpy.app.background or self._shown.get(number) is picture:
            return
        self._shown[number] = picture
        name = f"job {number}"
        icons = self._collection()
        icon = icons[name] if name in icons else icons.new(name)
        square = fitted_square(picture)
        icon.image_size = (PREVIEW_SIDE, PREVIEW_SIDE)
        icon.image_pixels.foreach_set(square.reshape(-1, 4).view(np.int32).ravel())

    def preview_icon(self, number: int) -> int:
        """Icon of a job's preview; 0 without."""
        return self._icon(f"job {number}") if number in self._shown else 0

    def forget_preview(self, number: int) -> None:
        """The job has ended."""
        if self._shown.pop(number, None) is not None:
            self._remove(f"job {number}")

    def previewed(self) -> list[int]:
        """Numbers of the jobs with previews."""
        return list(self._shown)

    def close(self) -> None:
        """Frees all icons."""
        if self._icons is not None:
            bpy.utils.previews.remove(self._icons)
        self._icons, self._thumbnail = None, ""
        self._shown.clear()

    def _collection(self) -> bpy.utils.previews.ImagePreviewCollection:
        if self._icons is None:
            self._icons = bpy.utils.previews.new()
        return self._icons

    def _icon(self, name: str) -> int:
        return self._icons[name].icon_id if name and self._icons is not None and name in self._icons else 0

    def _remove(self, name: str) -> None:
        if name and self._icons is not None and name in self._icons:
            del self._icons[name]


def fitted_square(picture: UInt8[ndarray, "height width 3"]) -> UInt8[ndarray, "side side 4"]:
    """The picture as large as it fits into a transparent square, bottom row first, as icons are."""
    height, width = picture.shape[:2]
    scale = PREVIEW_SIDE / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    # The nearest pixel does: it is a thumb's width on the screen.
    row_of = np.minimum((np.arange(rows) + 0.5) * height / rows, height - 1).astype(int)
    column_of = np.minimum((np.arange(columns) + 0.5) * width / columns, width - 1).astype(int)
    square = np.zeros((PREVIEW_SIDE, PREVIEW_SIDE, 4), np.uint8)
    top, left = (PREVIEW_SIDE - rows) // 2, (PREVIEW_SIDE - columns) // 2
    square[top : top + rows, left : left + columns, :3] = picture[row_of[:, None], column_of[None]]
    square[top : top + rows, left : left + columns, 3] = 255
    return np.ascontiguousarray(square[::-1])
