"""The drawn maps of skin: pigment and shade fields, hair regions, lips and eyes, one value a stored texel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.random import Generator
from scipy.spatial import cKDTree

from focus_backend.morphable import skin_regions as regions
from focus_backend.morphable.skin_regions import HeadLandmarks, TexelPlaces, blob, curve_height, in_front, is_skin, near_curve
from focus_backend.morphable.uv_atlas import ramp

IRIS_RADIUS = 5.8  # mm
MOTTLES, LOPSIDED_MOTTLES, FRECKLE_PATTERNS, MOLES = 10, 4, 3, 10
# Hair sets in over centimetres, never on a line: where it begins and where it is full, mm beyond HAIRLINE; low, usual, receding.
SCALP_BORDERS = ((-14.0, 38.0), (-2.0, 50.0), (10.0, 70.0))
SCALP_RAGGEDNESS = ((45.0, 5.0), (16.0, 2.5))  # bumps of the borders: distance and height (mm)


@dataclass(frozen=True)
class SkinMaps:
    """Maps over the stored texels.

    Attributes:
        melanin, blood, shade: named fields that change log pigment contents, or log colour evenly, by their value.
        mottle: smooth random fields, used for melanin and blood; the last LOPSIDED_MOTTLES differ between the sides.
        lips: share of vermilion; `mouth_inside`, `lid_inside`: moist linings.
        brow: texels where brows can be, their signed x outwards (mm) and y, both of the reference frame.
        beard: shares of moustache, chin, jaw, cheeks; `lash`: of upper and lower lid line.
        scalp: share of hair on the skull, for a low, a usual and a receding hairline.
        eye: texels of eyeballs; angle from straight ahead as distance in mm on the eyeball; height over its centre, mm.
    """

    melanin: dict[str, Float[ndarray, "t"]]
    blood: dict[str, Float[ndarray, "t"]]
    shade: dict[str, Float[ndarray, "t"]]
    mottle: Float[ndarray, "k t"]
    lips: Float[ndarray, "t"]
    mouth_inside: Float[ndarray, "t"]
    lid_inside: Float[ndarray, "t"]
    brow_texels: Int[ndarray, "b"]
    brow_place: Float[ndarray, "b 2"]
    beard: Float[ndarray, "4 t"]
    scalp: Float[ndarray, "3 t"]
    lash: Float[ndarray, "2 t"]
    eye_texels: Int[ndarray, "e"]
    eye_radius: Float[ndarray, "e"]
    eye_height: Float[ndarray, "e"]
    eye_side: Float[ndarray, "e"]


def draw_maps(places: TexelPlaces, marks: HeadLandmarks, random: Generator) -> SkinMaps:
    """All maps of a head; the random ones (mottling, freckles, moles) are drawn from `random`."""
    place = regions.reference_frame(places, marks)
    skin = is_skin(places).astype(float)
    lips = _draw_lips(places, place)
    brow_texels, brow_place = _brow_places(places, place)
    upper, lower, rim = _lid_distances(places, marks)
    eye_texels, eye_radius, eye_height, eye_side = _eye_places(places, marks)
    return SkinMaps(
        melanin=_melanin_fields(places, place, random),
        blood=_blood_fields(place, skin * (1 - lips), marks),
        shade=_shade_fields(places, place, marks, upper, lips),
        mottle=_mottle_fields(places.position, random) * skin,
        lips=lips,
        mouth_inside=np.isin(places.role, ["mouth", "tongue"]) * (1 - lips),
        lid_inside=(places.role == "eye_cavity") * ramp(rim, 0.2, 1.8),
        brow_texels=brow_texels,
        brow_place=brow_place,
        beard=_draw_beard(places, place, lips),
        scalp=_draw_scalp(places, place, random),
        lash=_draw_lashes(places, upper, lower) * skin,
        eye_texels=eye_texels,
        eye_radius=eye_radius,
        eye_height=eye_height,
        eye_side=eye_side,
    )


def _draw_lips(places: TexelPlaces, place: Float[ndarray, "t 3"]) -> Float[ndarray, "t"]:
    upper = curve_height(place[:, 0], regions.UPPER_LIP)
    lower = curve_height(place[:, 0], regions.LOWER_LIP)
    depth = np.minimum(upper - place[:, 1], place[:, 1] - lower)
    inside = ramp(depth, -0.9, 1.1) * ramp(22.9 - np.abs(place[:, 0]), -0.4, 1.2)
    return inside * np.isin(places.role, ["head", "mouth"]) * ramp(place[:, 2], 6.0, 12.0)


def _lid_distances(places: TexelPlaces, marks: HeadLandmarks) -> tuple[Float[ndarray, "t"], Float[ndarray, "t"], Float[ndarray, "t"]]:
    """Distance (mm) to the upper lid's rim, the lower's, and the nearer."""
    rims = marks.lid_rims
    outer = rims[np.abs(np.abs(rims[:, 0]) - np.abs(rims[:, 0]).max()) < 1.0, 1].mean()
    is_upper = rims[:, 1] > outer + 0.6
    upper = cKDTree(rims[is_upper]).query(places.position)[0]
    lower = cKDTree(rims[~is_upper]).query(places.position)[0]
    return upper, lower, np.minimum(upper, lower)


def _draw_lashes(places: TexelPlaces, upper: Float[ndarray, "t"], lower: Float[ndarray, "t"]) -> Float[ndarray, "2 t"]:
    """Lash lines: the upper along the edge where the lid turns under, the lower, fainter, at the rim."""
    turned_under = ramp(-places.normal[:, 1], -0.3, 0.05) * ramp(5.0 - upper, 0.0, 1.5) * (upper < lower)
    return np.stack([turned_under, np.exp(-0.5 * (lower / 0.85) ** 2)])


def _eye_places(places: TexelPlaces, marks: HeadLandmarks) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Eyeball texels: arc from straight ahead, height and outward offset from the centre, all in mm."""
    texels = np.flatnonzero(np.isin(places.role, ["eye_front", "eye_back"]))
    point = places.position[texels]
    side = np.sign(point[:, 0])
    offset = point - marks.eye_centres[(side > 0).astype(int)]
    angle = np.arctan2(np.linalg.norm(offset[:, :2], axis=1), offset[:, 2])
    return texels, angle * marks.eye_radius, offset[:, 1], offset[:, 0] * side


def _brow_places(places: TexelPlaces, place: Float[ndarray, "t 3"]) -> tuple[Int[ndarray, "b"], Float[ndarray, "b 2"]]:
    x, y = np.abs(place[:, 0]), place[:, 1]
    offset = y - curve_height(x, regions.BROW_LINE)
    texels = np.flatnonzero((places.role == "head") & (np.abs(offset) < 14) & (x > 3) & (x < 66) & (place[:, 2] > -22) & (y > 0))
    return texels, np.stack([x[texels], y[texels]], axis=1)


def _draw_beard(places: TexelPlaces, place: Float[ndarray, "t 3"], lips: Float[ndarray, "t"]) -> Float[ndarray, "4 t"]:
    x, y, z = np.abs(place[:, 0]), place[:, 1], place[:, 2]
    bare = np.isin(places.role, ["head"]) * (1 - ramp(lips, 0.05, 0.6)) * ramp(z, -78.0, -62.0)
    # From under the nose, slanting down past the mouth's corners, thinner in the groove of the middle.
    top = -49.5 - 0.035 * np.clip(x - 8, 0, None) ** 2
    moustache = ramp(top - y, -3.0, 4.5) * ramp(y + 72.0 + 0.35 * x, -3.0, 5.0) * ramp(31 - x, 0.0, 10.0) * (0.6 + 0.4 * ramp(x, 0.5, 6.0))
    line = curve_height(x, regions.BEARD_LINE)
    below = ramp(line - y, -3.0, 7.0)
    # The bare notch under the lower lip's corners.
    notch = 1 - 0.75 * blob(place, (16.0, -80.5), (5.0, 4.0)) * (x > 5)
    chin = ramp(-y, 76.0, 84.0) * ramp(30 - x, 0.0, 10.0) * ramp(z, -30.0, -12.0) + blob(place, (0.0, -83.0), (4.0, 4.0))
    chin = np.clip(chin, 0, 1) * notch
    jaw = below * ramp(-y, 66.0, 86.0) * (1 - ramp(30 - x, 0.0, 10.0)) * ramp(y, -128.0, -108.0)
    sideburn = ramp(z, -78.0, -62.0) * (1 - ramp(z, -55.0, -44.0)) * ramp(-y, -8.0, 6.0)
    cheeks = np.maximum(below * (1 - ramp(-y, 66.0, 86.0)) * ramp(x, 22.0, 32.0), sideburn)
    return np.stack([moustache, chin, jaw, cheeks]) * bare


def _draw_scalp(places: TexelPlaces, place: Float[ndarray, "t 3"], random: Generator) -> Float[ndarray, "3 t"]:
    """Skull under hair, within each border: above the hairline, behind the temples and down to the nape, never on the ears or the face."""
    x, y, z = np.abs(place[:, 0]), place[:, 1], place[:, 2]
    side = np.interp(y, *np.array(regions.TEMPLE_LINE).T)
    beyond = np.stack([y - curve_height(x, regions.HAIRLINE), np.minimum(side - z, y + 4.0), np.minimum(-112.0 - z, y + 84.0)])
    # A soft maximum rounds the corners where the borders of brow, temple and nape meet.
    depth = 7.0 * np.log(np.exp(np.clip(beyond, -200, 200) / 7.0).sum(0))
    one_side = _on_one_side(places.position)
    hair = [
        ramp(depth + sum(height * _waves(one_side, length, 16, random) for length, height in SCALP_RAGGEDNESS), *border)
        for border in SCALP_BORDERS
    ]
    ears = 1 - ramp(x, 71.0, 74.5) * ramp(20 - y, 0.0, 8.0) * ramp(-z, 45.0, 55.0) * ramp(z, -118.0, -108.0)
    return np.stack(hair) * ears * (places.role == "head")


def _melanin_fields(places: TexelPlaces, place: Float[ndarray, "t 3"], random: Generator) -> dict[str, Float[ndarray, "t"]]:
    front = in_front(place)
    fields = {
        "round_eyes": blob(place, (31.0, -3.0), (15.0, 10.0)) * front,
        "round_mouth": blob(place, (0.0, -72.0), (24.0, 17.0)) * front,
        "forehead": ramp(place[:, 1], 14.0, 40.0) * front,
        "neck_and_jaw": ramp(-place[:, 1], 92.0, 112.0),
        "sides": 1 - ramp(place[:, 2], -70.0, -5.0),
    }
    spread = (blob(place, (30.0, -24.0), (24.0, 15.0)) + 0.8 * blob(place, (0.0, -18.0), (12.0, 18.0)) + 0.25) * front
    skin = is_skin(places)
    for k in range(FRECKLE_PATTERNS):
        grain = _waves(places.position, 5.5, 24, random)
        fields[f"freckles_{k}"] = np.clip(grain - 1.0, 0, 1.2) * spread * skin
    candidates = np.flatnonzero((places.role == "head") & (place[:, 2] > -20) & (place[:, 1] > -100) & (place[:, 1] < 50))
    for k in range(MOLES):
        centre = places.position[candidates[int(random.integers(len(candidates)))]]
        distance = np.linalg.norm(places.position - centre, axis=1)
        fields[f"mole_{k}"] = np.exp(-0.5 * (distance / random.uniform(0.9, 1.5)) ** 2) * skin
    return fields


def _blood_fields(place: Float[ndarray, "t 3"], skin: Float[ndarray, "t"], marks: HeadLandmarks) -> dict[str, Float[ndarray, "t"]]:
    front = in_front(place)
    away = np.linalg.norm(place - marks.nose_tip, axis=1)
    fields = {
        "cheeks": blob(place, (38.0, -32.0), (15.0, 14.0)) * front,
        "nose": np.exp(-0.5 * (away / 12.0) ** 2) + 0.6 * blob(place, (13.0, -40.0), (6.0, 6.0)) * front,
        "chin": blob(place, (0.0, -95.0), (14.0, 9.0)) * front,
        "ears": ramp(np.abs(place[:, 0]), 70.0, 76.0) * ramp(-place[:, 2], 50.0, 62.0),
        "lids": blob(place, (31.0, 2.0), (13.0, 7.0)) * front,
        "under_brows": blob(place, (0.0, 12.0), (12.0, 12.0)) * front,
    }
    return {name: field * skin for name, field in fields.items()}


def _shade_fields(
    places: TexelPlaces, place: Float[ndarray, "t 3"], marks: HeadLandmarks, upper_lid: Float[ndarray, "t"], lips: Float[ndarray, "t"]
) -> dict[str, Float[ndarray, "t"]]:
    """Darkening where skin folds: negative changes of log colour are drawn by positive maps here."""
    skin, front = is_skin(places), in_front(place)
    x, y = np.abs(place[:, 0]), place[:, 1]
    lines = sum(np.exp(-0.5 * ((y - height - 1.5 * np.cos(x / 14)) / 1.2) ** 2) for height in (26.0, 34.0, 42.5)) * ramp(48 - x, 0, 18)
    depth = cKDTree(marks.nostrils).query(places.position)[0] if len(marks.nostrils) else np.full(len(x), 99.0)
    slit = np.exp(-0.5 * ((y - regions.REFERENCE_HEIGHTS["mouth"]) / 1.0) ** 2) * ramp(24.0 - x, 0.0, 2.0) * ramp(place[:, 2], 8, 14)
    fields = {
        "nasolabial": near_curve(place, regions.NASOLABIAL, 1.5) * front,
        "forehead_lines": lines * front,
        "frown": np.exp(-0.5 * ((x - 6.5) / 1.1) ** 2) * blob(place, (6.5, 12.0), (6.0, 7.0)) * front,
        "eye_bags": near_curve(place, regions.EYE_BAG, 2.2) * front,
        "crow_feet": blob(place, (54.0, -2.0), (6.0, 8.0))
        * (0.5 + 0.5 * np.cos(2 * np.pi * (y + 0.25 * (x - 44)) / 5.0))
        * in_front(place, -25, -8),
        "under_eyes": blob(place, (27.0, -11.0), (11.0, 5.0)) * front,
        "lid_fold": np.exp(-0.5 * ((upper_lid - 4.6) / 1.1) ** 2) * (y > 0) * front,
        "eye_socket": blob(place, (18.0, 3.0), (5.0, 6.0)) * front,
        "nostrils": np.exp(-0.5 * (np.maximum(depth - 1.2, 0) / 1.7) ** 2),
        "alar_fold": near_curve(place, ((13.5, -46.5), (17.0, -43.0), (17.8, -37.5), (15.5, -33.5)), 1.3) * front,
        "mouth_slit": slit * np.maximum(lips, 0.6),
        "chin_fold": np.exp(-0.5 * ((y + 84.5 + 0.012 * x**2) / 2.5) ** 2) * ramp(20 - x, 0, 8) * front,
    }
    return {name: field * (skin | (name == "mouth_slit")) for name, field in fields.items()}


def _mottle_fields(position: Float[ndarray, "t 3"], random: Generator) -> Float[ndarray, "k t"]:
    """Smooth random fields of unit variance: equal on both sides, then different ones."""
    one_side = _on_one_side(position)
    lengths = np.geomspace(90.0, 22.0, MOTTLES)
    even = [_waves(one_side, length, 16, random) for length in lengths]
    odd = [_waves(position, length, 16, random) for length in np.geomspace(90.0, 25.0, LOPSIDED_MOTTLES)]
    return np.stack(even + odd)


def _on_one_side(position: Float[ndarray, "t 3"]) -> Float[ndarray, "t 3"]:
    """Places of the subject's right moved to their mirror image, so that fields over them are symmetric."""
    return position * np.sign(position[:, :1] + 1e-12) ** np.array([1, 0, 0])


def _waves(position: Float[ndarray, "t 3"], length: float, count: int, random: Generator) -> Float[ndarray, "t"]:
    """A random field of about unit variance whose bumps are `length` mm apart: a sum of plane waves in random directions."""
    directions = random.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    frequency = 2 * np.pi / length * random.uniform(0.7, 1.3, (count, 1))
    phase = random.uniform(0, 2 * np.pi, count)
    return np.cos(position @ (directions * frequency).T + phase).sum(1) * np.sqrt(2 / count)
