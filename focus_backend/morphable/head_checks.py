"""Which sampled heads are no possible people: lips that cross, eyeballs that stick out or lie bare, measures that nobody has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from focus_backend.morphable.measures import face_width, point_measures

if TYPE_CHECKING:
    from focus_backend.morphable.anny_source import AnnyHead

# Measures, mm: at least four standard deviations below the smallest and above the largest mean of the groups in docs/face-model.md.
PLAUSIBLE_MEASURES = {
    "zy-zy": (109.0, 171.0),
    "n-gn": (92.0, 148.0),
    "n-sn": (38.0, 68.0),
    "en-en": (21.5, 51.5),
    "ex-ex": (75.0, 112.0),
    "ch-ch": (36.0, 66.5),
}
# Upper and lower inner lip, among the 68, and how far they may pass through each other, mm.
UPPER_INNER, LOWER_INNER, MOST_LIP_CROSSING = (61, 62, 63), (67, 66, 65), 1.0
# Margins of the lids among the 68, and how far from the eyeball's surface they may lie, mm: inside it, and before it.
RIGHT_LIDS, LEFT_LIDS = (37, 38, 40, 41), (43, 44, 46, 47)
LID_DISTANCE = (-1.2, 4.5)


def is_plausible(
    head: AnnyHead, people: Float[ndarray, "people vertices 3"], landmarks: Float[ndarray, "people 68 3"], face: Int[ndarray, "face"]
) -> Bool[ndarray, "people"]:
    """Whether each head could be a person's.

    Args:
        people: vertices of the heads, mm.
        landmarks: their 68 points.
        face: vertices of the face region.
    """
    checks = (has_human_measures(people[:, face], landmarks), has_closed_lips(landmarks), has_seated_eyes(head, people, landmarks))
    return np.logical_and.reduce(checks)


def has_human_measures(face: Float[ndarray, "people face 3"], landmarks: Float[ndarray, "people 68 3"]) -> Bool[ndarray, "people"]:
    """Whether the face's measures are those of adults of some population."""
    measures = point_measures(landmarks) | {"zy-zy": face_width(face, landmarks)}
    return np.logical_and.reduce([(measures[name] > low) & (measures[name] < high) for name, (low, high) in PLAUSIBLE_MEASURES.items()])


def has_closed_lips(landmarks: Float[ndarray, "people 68 3"]) -> Bool[ndarray, "people"]:
    """Whether the lips meet without passing through each other."""
    gap = landmarks[:, UPPER_INNER, 1] - landmarks[:, LOWER_INNER, 1]
    return gap.min(1) > -MOST_LIP_CROSSING


def has_seated_eyes(
    head: AnnyHead, people: Float[ndarray, "people vertices 3"], landmarks: Float[ndarray, "people 68 3"]
) -> Bool[ndarray, "people"]:
    """Whether the lids lie on the eyeballs: neither pierced by them nor standing off."""
    seated = np.ones(len(people), dtype=bool)
    for eye, lids in ((head.left_eye, LEFT_LIDS), (head.right_eye, RIGHT_LIDS)):
        ball = people[:, eye]
        centre = (ball.min(1) + ball.max(1)) / 2
        radius = np.linalg.norm(ball - centre[:, None], axis=-1).mean(1)
        distance = np.linalg.norm(landmarks[:, lids] - centre[:, None], axis=-1) - radius[:, None]
        seated &= (distance > LID_DISTANCE[0]).all(1) & (distance < LID_DISTANCE[1]).all(1)
    return seated
