"""The default detector: MediaPipe's 478-point face mesh, searched for in the whole photo and averaged over several crops."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, UInt8

from focus_backend.landmarks import mediapipe_points as mesh
from focus_backend.landmarks.crops import PhotoPyramid, Region, region_around
from focus_backend.landmarks.detector import Detection, bounding_box, largest_first
from focus_backend.landmarks.face_search import CROP_SCALE, look, tile_looks, turned_looks, whole_looks
from focus_backend.landmarks.mediapipe_graphs import CROP_PIXELS, MediaPipeGraphs
from focus_backend.progress import Beat, quiet

# Crops are moved (shares of their side), scaled and turned (radians) about the settled one, each seen plain and mirrored:
# the points' mean is steadier than any one look. Chosen symmetric, so that no direction is preferred.
_VIEWS = (
    ((0.0, 0.0), 1.0, 0.0),
    ((0.04, 0.02), 0.94, 0.10),
    ((-0.04, 0.02), 1.06, -0.10),
    ((0.0, -0.04), 1.12, 0.05),
)
_LEAST_FINDER_SCORE = 0.3
_LEAST_MESH_SCORE = 0.5
# Mean over the views. The 64 portraits have more than 0.9998 (one, half hidden, 0.995); a folded sleeve got 0.93.
_LEAST_SCORE = 0.95
_LEAST_SURE_SCORE = 0.99
_LEAST_FACE_PIXELS = 20.0
# A true face gives nearly the same points in every view; a wall does not. Median spread as a share of the face's size:
# 64 studio portraits have 0.3 to 1.3 % (one, half hidden, 3.3 %).
_LARGEST_SPREAD = 0.05
_LARGEST_SURE_SPREAD = 0.02
# In a portrait nobody asks for the passers-by: tiles are searched when no face is this large a share of the photo.
_PORTRAIT_SHARE = 0.35


class MediaPipeDetector:
    """MediaPipe's face mesh on whole photos: many faces, small or large, turned to the side or lying.

    Args:
        views: crops that are averaged; fewer are quicker and less steady.
        is_thorough: also searches for small, hidden and lying faces where no other is found.
    """

    name = "mediapipe"
    point_names = mesh.POINT_NAMES
    version = "mediapipe-0.10.21/1"

    def __init__(self, views: int = len(_VIEWS), is_thorough: bool = True) -> None:
        self._views = _VIEWS[:views]
        self._is_thorough = is_thorough
        self._graphs: MediaPipeGraphs | None = None
        self._lock = threading.Lock()

    def detect(self, pixels: UInt8[np.ndarray, "height width 3"], beat: Beat = quiet) -> list[Detection]:
        """Every face of an upright RGB photo, largest first; an empty list when there is none.

        Args:
            pixels: the photo.
            beat: called before every look at the photo.

        Raises:
            MissingDependencyError: mediapipe is absent.
        """
        height, width = pixels.shape[:2]
        photo = PhotoPyramid(pixels)
        with self._lock:
            if self._graphs is None:
                self._graphs = MediaPipeGraphs(_LEAST_FINDER_SCORE)
            found = self._search(self._graphs, photo, whole_looks(width, height), [], beat)
            if not self._is_thorough:
                return largest_first(found)
            if max((detection.size for detection in found), default=0.0) < _PORTRAIT_SHARE * max(width, height):
                found = self._search(self._graphs, photo, tile_looks(width, height), found, beat)
            if not any(_is_sure(detection) for detection in found):
                found = self._search(self._graphs, photo, turned_looks(width, height), found, beat, is_one_enough=True)
        # Doubtful faces count only where there is nothing better.
        return largest_first([detection for detection in found if _is_sure(detection)] or found)

    def _search(
        self,
        graphs: MediaPipeGraphs,
        photo: PhotoPyramid,
        looks: Iterable[tuple[Region, int]],
        known: list[Detection],
        beat: Beat,
        is_one_enough: bool = False,
    ) -> list[Detection]:
        """The faces known already and those that further looks add; a sure face takes the place of a doubtful one."""
        found = list(known)
        for region, finder in looks:
            beat()
            for square in look(graphs, photo, region, finder):
                if any(_is_same_face(square, other) for other in found if _is_sure(other)):
                    continue
                detection = self._settle(graphs, photo, square, beat)
                if detection:
                    found = _with(found, detection)
            if is_one_enough and any(_is_sure(detection) for detection in found):
                break
        return found

    def _settle(self, graphs: MediaPipeGraphs, photo: PhotoPyramid, square: Region, beat: Beat) -> Detection | None:
        """The face in a square found by a finder: the square is settled on the mesh itself, then seen in several views."""
        for _ in range(2):
            points, score = graphs.mesh(photo.cut(square, CROP_PIXELS))
            if score < _LEAST_MESH_SCORE:
                return None
            square = _square_around(square.to_photo(points[:, :2]))
        views = []
        for shift, scale, turn in self._views:
            beat()
            for mirrored in (False, True):
                view = square.moved(shift, scale, turn)
                points, score = graphs.mesh(photo.cut(view, CROP_PIXELS, mirrored))
                if score >= _LEAST_MESH_SCORE:
                    views.append((_points_in_photo(points, view, mirrored), score))
        if len(views) <= len(self._views):
            return None
        return _detection(np.stack([points for points, _ in views]), float(np.mean([score for _, score in views])))


def _square_around(points: Float[np.ndarray, "478 2"]) -> Region:
    return region_around(points[: mesh.MESH_POINTS], points[mesh.RIGHT_EYE_OUTER], points[mesh.LEFT_EYE_OUTER], CROP_SCALE)


def _points_in_photo(points: Float[np.ndarray, "478 3"], view: Region, mirrored: bool) -> Float[np.ndarray, "478 3"]:
    """Points of a crop in photo pixels, with depth in pixels."""
    in_photo = np.column_stack([view.to_photo(points[:, :2], mirrored), points[:, 2] * view.size])
    return in_photo[mesh.mirrored_indices()] if mirrored else in_photo


def _detection(views: Float[np.ndarray, "views 478 3"], score: float) -> Detection | None:
    center = np.median(views, 0)
    points = center[:, :2]
    spread = np.sqrt(((views - center)[..., :2] ** 2).sum(-1).mean(0) / 2)
    box = bounding_box(points[: mesh.MESH_POINTS])
    size = max(box[2] - box[0], box[3] - box[1])
    if score < _LEAST_SCORE or size < _LEAST_FACE_PIXELS or np.median(spread) > _LARGEST_SPREAD * size:
        return None
    return Detection(
        detector=MediaPipeDetector.name,
        names=mesh.POINT_NAMES,
        points=points,
        five_points=mesh.five_points(points),
        box=box,
        score=score,
        spread=spread,
        depth=center[:, 2],
    )


def _median_spread(detection: Detection) -> float:
    """Median spread of the points as a share of the face's size."""
    return 1.0 if detection.spread is None else float(np.median(detection.spread)) / detection.size


def _is_sure(detection: Detection) -> bool:
    return detection.score > _LEAST_SURE_SCORE and _median_spread(detection) < _LARGEST_SURE_SPREAD


def _with(found: list[Detection], new: Detection) -> list[Detection]:
    """The list with a detection added; of those that overlap the steadiest stays."""
    rivals = [other for other in found if _overlap(new.box, other.box) > 0.3]
    if any(_median_spread(other) <= _median_spread(new) for other in rivals):
        return found
    return [other for other in found if not any(other is rival for rival in rivals)] + [new]


def _is_same_face(square: Region, other: Detection) -> bool:
    """Whether a finder's square lies on a face already found: close in place and in size."""
    center = (np.array(other.box[:2]) + other.box[2:]) / 2
    distance = float(np.linalg.norm(center - square.center))
    return distance < 0.35 * other.size and 0.4 < square.size / CROP_SCALE / other.size < 2.5


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Shared area of two boxes as a share of the smaller."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / min(areas)
