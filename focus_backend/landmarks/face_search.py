"""Where faces may be in a whole photo: several looks at it, from the whole down to overlapping tiles, turned when need be."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from focus_backend.landmarks.crops import PhotoPyramid, Region, region_around
from focus_backend.landmarks.mediapipe_graphs import FoundFace, MediaPipeGraphs

NEAR, FAR = 0, 1
# What the two finders see, pixels a side.
_FINDER_PIXELS = (128, 192)
# The mesh network was trained on squares half as large again as the face, eyes level.
CROP_SCALE = 1.5
# Tiles are halved until they have about this many pixels a side.
_TILE_PIXELS = 320


def whole_looks(width: int, height: int) -> Iterator[tuple[Region, int]]:
    """The whole photo with a border, for both finders."""
    whole = Region((width / 2, height / 2), max(width, height) * 1.2)
    yield whole, FAR
    yield whole, NEAR


def tile_looks(width: int, height: int) -> Iterator[tuple[Region, int]]:
    """Overlapping tiles, down to those in which a face of some 20 pixels is large enough for the finder."""
    longest = max(width, height)
    for halving in range(1, 1 + min(3, math.ceil(math.log2(max(longest / _TILE_PIXELS, 1.0))))):
        for tile in _tiles(width, height, longest * 0.5**halving * 1.25):
            yield tile, FAR


def turned_looks(width: int, height: int) -> Iterator[tuple[Region, int]]:
    """For photos in which nothing was found: faces that fill or overflow the photo, faces lying on their side, faces far away."""
    longest, middle = max(width, height), (width / 2, height / 2)
    for scale in (2.0, 3.0):
        yield Region(middle, longest * scale), NEAR
    for degrees in (30, -30, 60, -60, 90, -90, 180):
        turned = Region(middle, longest * 1.4, math.radians(degrees))
        yield turned, FAR
        yield turned, NEAR
    for tile in _tiles(width, height, longest * 0.5):
        yield tile, FAR
        yield tile, NEAR


def look(graphs: MediaPipeGraphs, photo: PhotoPyramid, region: Region, finder: int) -> list[Region]:
    """The squares to run the mesh network on, for each face that a finder sees in a region of the photo; surest first."""
    picture = photo.cut(region, _FINDER_PIXELS[finder])
    found = sorted(graphs.find(picture, finder), key=lambda face: -face.score)
    return [_mesh_region(face, region) for face in found]


def _mesh_region(face: FoundFace, region: Region) -> Region:
    left, top, width, height = face.box
    corners = np.array([[left, top], [left + width, top], [left, top + height], [left + width, top + height]])
    eyes = region.to_photo(face.eyes)
    center = region.to_photo(corners).mean(0)
    turned = region_around(eyes, eyes[0], eyes[1], 1.0)
    return Region((float(center[0]), float(center[1])), float(max(width, height)) * region.size * CROP_SCALE, turned.angle)


def _tiles(width: int, height: int, side: float) -> Iterator[Region]:
    """Squares of `side` that cover the photo and overlap by at least a quarter."""
    columns, rows = (max(1, math.ceil((length - side * 0.25) / (side * 0.75))) for length in (width, height))
    for y in _centers(height, side, rows):
        for x in _centers(width, side, columns):
            yield Region((x, y), side)


def _centers(length: int, side: float, count: int) -> list[float]:
    if count == 1:
        return [length / 2]
    return [float(value) for value in np.linspace(side / 2, length - side / 2, count)]
