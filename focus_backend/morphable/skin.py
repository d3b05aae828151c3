"""A procedural albedo basis for head models that ship none: people's skin, hair and eyes painted on the atlas, then PCA.

Skin is exp(base + pigment fields), which keeps it positive; hair, lashes and eyes are laid over it. All in linear RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.random import Generator
from torch import Tensor

from focus_backend.errors import ModelError
from focus_backend.morphable.skin_maps import FRECKLE_PATTERNS, IRIS_RADIUS, LOPSIDED_MOTTLES, MOLES, MOTTLES, SkinMaps, draw_maps
from focus_backend.morphable.skin_pigments import log_colour_slopes, skin_colour
from focus_backend.morphable.skin_population import People, sample_people
from focus_backend.morphable.skin_regions import BROW_HALF_WIDTH, BROW_LINE, curve_height, place_texels

CHUNK = 64  # people painted at once
SCOUT_TEXELS = 7000  # texels that the components are found on, before they are painted in full
OVERSAMPLING, POWER_ITERATIONS = 40, 6  # of the randomised singular value decomposition

# Mean and spread of the pigment and shade fields, as changes of log content or log colour. "age" adds at full age.
MELANIN_WEIGHTS = {
    "round_eyes": (0.16, 0.14),
    "round_mouth": (0.04, 0.10),
    "forehead": (0.06, 0.12),
    "neck_and_jaw": (-0.05, 0.12),
    "sides": (0.0, 0.1),
}
BLOOD_WEIGHTS = {
    "cheeks": (0.50, 0.36), "nose": (0.45, 0.32), "chin": (0.25, 0.20), "ears": (0.70, 0.40), "lids": (0.50, 0.32),
    "under_brows": (0.10, 0.18),
}  # fmt: skip
SHADE_WEIGHTS = {
    "nasolabial": (0.02, 0.04, 0.12), "forehead_lines": (0.0, 0.02, 0.07), "frown": (0.0, 0.04, 0.12), "eye_bags": (0.03, 0.05, 0.12),
    "crow_feet": (0.0, 0.03, 0.10), "under_eyes": (0.06, 0.08, 0.06), "lid_fold": (0.16, 0.10, 0.02), "eye_socket": (0.10, 0.06, 0.0),
    "nostrils": (1.1, 0.15, 0.0), "alar_fold": (0.16, 0.06, 0.05), "mouth_slit": (0.85, 0.15, 0.0), "chin_fold": (0.05, 0.04, 0.02),
}  # fmt: skip
MOTTLE_SPREADS = (0.02, 0.06)  # of log melanin and log blood, each mottle field
MOUTH_LINING, LID_LINING = (-0.75, -1.35, -1.15), (-0.35, -0.85, -0.75)


@dataclass(frozen=True)
class SkinGeometry:
    """The mean head that skin is painted on, with its atlas.

    Attributes:
        vertices: model space, mm.
        quads: polygons, four corners each.
        uv: texture coordinates as `repack_uv` gives them, origin bottom left.
        quad_uv: index into `uv` of each quad corner.
    """

    vertices: Float[Tensor, "vertices 3"]
    quads: Int[Tensor, "quads 4"]
    uv: Float[Tensor, "uvs 2"]
    quad_uv: Int[Tensor, "quads 4"]


@dataclass(frozen=True)
class AlbedoBasis:
    """A linear model of albedo textures, linear RGB.

    Attributes:
        texels: flat index (row * size + column, row 0 at the top) of each stored texel, ascending.
        mean: mean albedo.
        basis: offset of one standard deviation of each component, by falling variance.
        explained: share of the sampled variance that the components hold.
    """

    texels: Int[Tensor, "texels"]
    mean: Float[Tensor, "texels 3"]
    basis: Float[Tensor, "albedo texels 3"]
    explained: float


def build_albedo(geometry: SkinGeometry, texture_size: int = 256, samples: int = 5000, components: int = 80, seed: int = 0) -> AlbedoBasis:
    """The albedo basis of a sampled population; the same bytes for the same arguments on the same machine.

    Args:
        geometry: a symmetric mean head and its atlas.
        texture_size: rows and columns of the texture.
        samples: people painted.
        components: kept components.
        seed: of the population and of the mottling, freckle and mole patterns.

    Raises:
        ModelError: fewer samples than components need, or a mesh that is not a head.
    """
    if samples <= components + OVERSAMPLING:
        raise ModelError(f"{samples} samples are too few for {components} albedo components", f"ask for {components + OVERSAMPLING + 1}")
    painter = make_painter(geometry, texture_size, seed)
    people = sample_people(samples, np.random.default_rng([seed, 1]))
    weights = sample_weights(people, np.random.default_rng([seed, 2]))
    scores = _find_scores(painter, people, weights, components, np.random.default_rng([seed, 3]))
    return _paint_components(painter, people, weights, scores)


@dataclass(frozen=True)
class Painter:
    """Maps as tensors, ready to paint people on.

    Attributes:
        texels: as in `AlbedoBasis`.
        maps: the drawn maps.
        fields: every map that changes log colour, stacked in the order of `FieldWeights`.
    """

    texels: Int[ndarray, "t"]
    maps: SkinMaps
    fields: Float[Tensor, "fields t"]


def make_painter(geometry: SkinGeometry, texture_size: int, seed: int) -> Painter:
    """The painter of a head's atlas."""
    points, uv = geometry.vertices.detach().double().cpu().numpy(), geometry.uv.detach().double().cpu().numpy()
    places, marks = place_texels(points, geometry.quads.cpu().numpy(), uv, geometry.quad_uv.cpu().numpy(), texture_size)
    maps = draw_maps(places, marks, np.random.default_rng([seed, 0]))
    stacked = [
        *maps.melanin.values(),
        *maps.blood.values(),
        *maps.shade.values(),
        *maps.mottle,
        maps.lips,
        maps.mouth_inside,
        maps.lid_inside,
    ]
    return Painter(places.texels, maps, torch.from_numpy(np.stack(stacked).astype(np.float32)))


def sample_weights(people: People, random: Generator) -> Float[ndarray, "n fields 3"]:
    """Weight of every log-colour field for every person and colour channel, in the order of `Painter.fields`."""
    count = len(people.age)
    to_melanin, to_blood = log_colour_slopes(people.pigments)
    melanin = [random.normal(*MELANIN_WEIGHTS[name], count) for name in MELANIN_WEIGHTS]
    pale = np.clip((people.lightness - 0.22) / 0.15, 0, 1)
    is_freckled = random.random(count) < 0.35 * pale + 0.03
    melanin += [is_freckled * np.abs(random.normal(0, 0.45, count)) for _ in range(FRECKLE_PATTERNS)]
    melanin += [(random.random(count) < 0.06) * random.uniform(0.5, 1.4, count) for _ in range(MOLES)]
    flush = random.normal(0, 0.5, count)
    blood = [mean + spread * (0.7 * random.normal(0, 1, count) + flush) for mean, spread in BLOOD_WEIGHTS.values()]
    shade = [
        -np.maximum(mean + people.age**1.5 * aged + spread * random.normal(0, 1, count), 0) for mean, spread, aged in SHADE_WEIGHTS.values()
    ]
    channels = [value[:, None] * to_melanin for value in melanin]
    channels += [value[:, None] * to_blood for value in blood]
    channels += [np.repeat(value[:, None], 3, axis=1) for value in shade]
    patchiness = np.exp(random.normal(0, 0.3, count)) * (0.7 + 0.6 * people.age)
    # A linear model adds the same patches to every tone: keep them as faint on pale skin as on dark, in absolute terms.
    patchiness = patchiness * np.clip(0.2 / people.lightness, 0.4, 1.5)
    for k in range(MOTTLES + LOPSIDED_MOTTLES):
        tan, red = (random.normal(0, spread, count) * patchiness * (1.0 if k < MOTTLES else 0.6) for spread in MOTTLE_SPREADS)
        channels.append(tan[:, None] * to_melanin + red[:, None] * to_blood)
    linings = [people.lips, people.lips * 0.3 + np.array(MOUTH_LINING), people.lips * 0.2 + np.array(LID_LINING)]
    return np.stack(channels + linings, axis=1)


def restrict(painter: Painter, chosen: Int[ndarray, "k"]) -> Painter:
    """The painter of some of the stored texels, given by ascending index."""
    maps = painter.maps
    rank = np.full(len(painter.texels), -1)
    rank[chosen] = np.arange(len(chosen))
    in_brow, in_eye = rank[maps.brow_texels] >= 0, rank[maps.eye_texels] >= 0
    parts: dict[str, Any] = {
        name: {key: value[chosen] for key, value in getattr(maps, name).items()} for name in ("melanin", "blood", "shade")
    }
    parts |= {name: getattr(maps, name)[..., chosen] for name in ("mottle", "lips", "mouth_inside", "lid_inside", "beard", "scalp", "lash")}
    parts |= {name: getattr(maps, name)[in_eye] for name in ("eye_radius", "eye_height", "eye_side")}
    parts |= {
        "brow_texels": rank[maps.brow_texels][in_brow],
        "brow_place": maps.brow_place[in_brow],
        "eye_texels": rank[maps.eye_texels][in_eye],
    }
    return Painter(painter.texels[chosen], SkinMaps(**parts), painter.fields[:, torch.from_numpy(chosen)].contiguous())


def paint(painter: Painter, people: People, weights: Float[ndarray, "n fields 3"], rows: slice) -> Float[Tensor, "painted 3 t"]:
    """Albedo textures of the people in `rows`, linear RGB, channel by channel."""
    maps, hair = painter.maps, people.hair[rows]
    base = torch.from_numpy(np.log(skin_colour(people.pigments)[rows]).astype(np.float32))
    weight = torch.from_numpy(weights[rows].astype(np.float32)).transpose(1, 2)
    texture = (weight.flatten(0, 1) @ painter.fields).unflatten(0, base.shape).add_(base[..., None]).exp_()
    _cover(texture, *_layers(maps.beard, people.beard[rows]), hair * 0.9)
    _cover(texture, maps.brow_texels, brow_coverage(maps.brow_place, people.brow[rows]), hair * 0.5)
    _cover(texture, *_layers(maps.scalp, people.scalp[rows]), hair)
    _cover(texture, *_layers(maps.lash, people.lash[rows]), hair * 0.3 + 0.004)
    texture[..., torch.from_numpy(maps.eye_texels)] = torch.from_numpy(eye_colours(maps, people, rows).astype(np.float32))
    return texture


def _layers(maps: Float[ndarray, "k t"], shares: Float[ndarray, "n k"]) -> tuple[Int[ndarray, "m"], Float[ndarray, "n m"]]:
    """The texels that some map touches, and their coverage by all maps, each weighted for each person."""
    touched = np.flatnonzero(maps.max(0) > 0.01)
    bare = np.ones((len(shares), len(touched)), dtype=np.float32)
    for share, layer in zip(shares.T.astype(np.float32), maps[:, touched].astype(np.float32), strict=True):
        bare *= 1 - share[:, None] * layer
    return touched, 1 - bare


def _cover(
    texture: Float[Tensor, "n 3 t"], texels: Int[ndarray, "k"], coverage: Float[ndarray, "n k"], colour: Float[ndarray, "n 3"]
) -> None:
    """Lays a colour over some texels, in place."""
    index, share = torch.from_numpy(texels), torch.from_numpy(coverage.astype(np.float32))[:, None]
    ink = torch.from_numpy(colour.astype(np.float32))[..., None]
    under = texture[..., index]
    texture[..., index] = under + share * (ink - under)


def brow_coverage(place: Float[ndarray, "b 2"], brow: Float[ndarray, "n 6"]) -> Float[ndarray, "n b"]:
    """Share of hair at places (reference frame, mm, x >= 0) for brows given as in `People.brow`."""
    thickness, coverage, lift, arch, reach, tilt = (brow[:, k, None] for k in range(6))
    x, y = place[:, 0], place[:, 1]
    table = np.array(BROW_HALF_WIDTH)
    half = np.interp(x, table[:, 0], table[:, 1]) * thickness
    middle = curve_height(x, BROW_LINE) + lift + arch * np.exp(-(((x - 38) / 12) ** 2)) + tilt * (x - 30)
    inner, outer = x - (10.5 - reach), 57.0 - x
    body = 1 / (1 + np.exp((np.abs(y - middle) - half) / 0.55))
    start, end = 1 / (1 + np.exp(-(inner - 1.5) / 1.6)), 1 / (1 + np.exp(-(outer - 3.0) / 1.8))
    # Hair is thin where the brow begins and densest in its middle.
    return coverage * body * start * end * (0.72 + 0.28 * np.clip(inner / 12, 0, 1))


def eye_colours(maps: SkinMaps, people: People, rows: slice) -> Float[ndarray, "painted 3 e"]:
    """Colours of the eyeballs' texels: pupil, iris with its dark limbus, white, darker under the upper lid and red in the corners."""
    ratio = maps.eye_radius / IRIS_RADIUS
    pupil = people.pupil[rows][:, None]
    in_iris = 1 / (1 + np.exp((ratio - 1.0) / 0.045))
    in_pupil = 1 / (1 + np.exp((ratio - pupil) / 0.05))
    ring = 1.15 - 0.75 * np.exp(-(((ratio - 1.0) / 0.16) ** 2)) - 0.2 * np.exp(-(((ratio - 0.45) / 0.15) ** 2))
    lid_shadow = 1 - 0.15 / (1 + np.exp(-(maps.eye_height - 2.4) / 0.8))
    corner = np.clip((np.abs(maps.eye_side) - 7.0) / 7.0, 0, 1) * np.array([0.15, 0.45, 0.45])[:, None]
    white = people.sclera[rows][..., None] * (1 - corner)
    iris = people.iris[rows][..., None] * ring
    colour = white + in_iris * (iris - white)
    colour = colour + in_pupil[:, None] * (0.006 - colour)
    return colour * lid_shadow


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, CHUNK):
        yield slice(start, min(start + CHUNK, count))


def _find_scores(
    painter: Painter, people: People, weights: Float[ndarray, "n fields 3"], components: int, random: Generator
) -> Float[Tensor, "n components"]:
    """Orthonormal scores of the people on the leading components, found on a random part of the texels."""
    count, stored = len(people.age), len(painter.texels)
    scout = restrict(painter, np.sort(random.choice(stored, min(SCOUT_TEXELS, stored), replace=False)))
    table = torch.cat([paint(scout, people, weights, rows).flatten(1) for rows in _chunks(count)])
    table -= table.mean(0, keepdim=True)
    sketch = torch.from_numpy(random.normal(size=(table.shape[1], components + OVERSAMPLING)).astype(np.float32))
    basis = _orthonormal(table @ sketch)
    for _ in range(POWER_ITERATIONS):
        basis = _orthonormal(table @ _orthonormal(table.T @ basis))
    small = (table.T @ basis).double()
    _, vectors = torch.linalg.eigh(small.T @ small)
    return basis.double() @ vectors.flip(1)[:, :components]


def _orthonormal(columns: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    return torch.linalg.qr(columns.double())[0].float()


def _paint_components(
    painter: Painter, people: People, weights: Float[ndarray, "n fields 3"], scores: Float[Tensor, "n components"]
) -> AlbedoBasis:
    """Mean and components over all texels: the people painted once more, regressed on their scores, then rotated to principal axes."""
    count, size = len(scores), len(painter.texels) * 3
    total, squares = torch.zeros(size, dtype=torch.float64), 0.0
    loads = torch.zeros(scores.shape[1], size, dtype=torch.float64)
    for rows in _chunks(count):
        texture = paint(painter, people, weights, rows).flatten(1)
        loads += (scores[rows].float().T @ texture).double()
        total += texture.sum(0).double()
        squares += float(torch.linalg.vector_norm(texture, dtype=torch.float64)) ** 2
    mean = total / count
    variance = (squares - count * float(mean.square().sum())) / (count - 1)
    # The scores are orthonormal; what is left of their mean would leak the mean texture into the components.
    loads -= scores.sum(0)[:, None] * mean
    values, vectors = torch.linalg.eigh(loads @ loads.T)
    basis = vectors.flip(1).T @ loads / (count - 1) ** 0.5
    strongest = basis.gather(1, basis.abs().argmax(1, keepdim=True))
    basis = basis * strongest.sign()
    return AlbedoBasis(
        texels=torch.from_numpy(painter.texels),
        mean=mean.float().reshape(3, -1).T.contiguous(),
        basis=basis.float().reshape(len(basis), 3, -1).transpose(1, 2).contiguous(),
        explained=float(values.sum()) / (count - 1) / variance,
    )
