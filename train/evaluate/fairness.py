"""Whether networks serve everybody alike: errors on synthetic people, whose truth is known, by skin tone and by sex."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.weights import Weights, find_weights, load_weights, read_list
from focus_backend.reconstruction.method import misfit_for
from train.autoencoder import EncoderOutputs, Parts, Reconstructed, SegmentationLogits, reconstruct, segment
from train.config import NetworksConfig, TrainingConfig
from train.data.batch import FaceBatch
from train.data.people import detected, draw_people
from train.data.synthetic import SyntheticFaces
from train.evaluate.alignment import fit_similarity
from train.evaluate.errors import EvaluationError
from train.evaluate.head_sex import SexDirection, sex_direction
from train.evaluate.photometric import colour_error
from train.evaluate.segmentation import FACE, mask_scores
from train.evaluate.skin_tone import TONES, SkinSampler, tone_of, typology_angle
from train.evaluate.statistics import mean_and_error
from train.evaluate.tables import Cell, markdown_table, plain_table, to_json, write_file
from train.seeds import mixed

REPORT = "fairness.json"
_BATCH = 32
# Standard deviations of the face model's albedo, to either side, between which people's skin is equally often.
_LARGEST_LIGHTNESS = 3.0
# "mean head mm" is the error of the model's mean head, which looks at no photo: how unusual a group's heads are.
MEASURES = {
    "shape": "shape mm",
    "mean_head": "mean head mm",
    "mask_f1": "mask F1",
    "colour": "colour RMSE",
    "tone_bias": "skin tone off, degrees",
}
SEXES = ("nearer to men's heads", "nearer to women's heads")


@dataclass(frozen=True)
class PersonScore:
    """What became of one person.

    Attributes:
        tone: true typology angle, degrees.
        sex: place along `SexDirection`, standard deviations; None where it is not known.
        measures: by the names of `MEASURES`; empty where the detector found no face.
    """

    tone: float
    sex: float | None
    measures: Mapping[str, float]


@dataclass(frozen=True)
class FairnessReport:
    """Errors by group.

    Attributes:
        weights, sha256: name and hash of the weights.
        seed: of the people.
        people: all that were drawn.
        groups: title, then name of the group, to its people.
        sex: what sex was judged by; None where it could not be.
    """

    weights: str
    sha256: str
    seed: int
    people: tuple[PersonScore, ...]
    groups: Mapping[str, Mapping[str, tuple[PersonScore, ...]]]
    sex: SexDirection | None


def evaluate_fairness(weights: str | Path, people: int, seed: int) -> FairnessReport:
    """Draw people, have the networks alone look at them, and compare groups.

    Args:
        weights: with a segmentation network; a name or a folder.
        people: how many, rounded up to whole batches.
        seed: of the people; that of no training.

    Raises:
        WeightsError, ModelError: the weights or their face model cannot be used.
        EvaluationError: the weights have no segmentation network.
    """
    model = load_model(read_list(find_weights(weights))[0].face_model.name)
    loaded = load_weights(weights, model)
    judge = _Judge(loaded, model)
    direction = sex_direction(model)
    batches = _batches(loaded, model, people, seed)
    scores = tuple(score for true, seen in batches for score in judge.scores(true, seen, direction))
    return FairnessReport(loaded.name, loaded.sha256, seed, scores, _groups(scores), direction)


def fairness_document(report: FairnessReport) -> dict[str, Any]:
    """All figures as plain JSON values."""
    sex = None if report.sex is None else {"distance": report.sex.distance, "explained": report.sex.explained}
    groups = {title: {name: _figures(people) for name, people in groups.items()} for title, groups in report.groups.items()}
    head = {"weights": report.weights, "sha256": report.sha256, "seed": report.seed, "people": len(report.people)}
    return {**head, "all": _figures(report.people), "groups": groups, "sex": sex}


def fairness_table(document: Mapping[str, Any], as_markdown: bool = False) -> str:
    """The groups of a document of `fairness_document` as a table: means, with their standard error for the shape."""
    head = ["", "people", "found", *(name for measure in MEASURES for name in _columns(measure))]
    groups = {"all": document["all"], **{name: figures for group in document["groups"].values() for name, figures in group.items()}}
    rows: list[list[Cell]] = [[name, figures["people"], figures["found"], *_cells(figures)] for name, figures in groups.items()]
    return (markdown_table if as_markdown else plain_table)(head, rows)


def write_fairness(report: FairnessReport, out: Path) -> None:
    """Write `fairness.json`.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_file(out / REPORT, to_json(fairness_document(report)))


@dataclass(frozen=True)
class People:
    """Who is drawn: coefficients, standard deviations of the face model."""

    shape: Float[Tensor, "b shape"]
    albedo: Float[Tensor, "b albedo"]


class PeopleOfAllTones:
    """A `FaceSource` of people as training draws them, but with dark and light skin equally often.

    Args:
        drawn: draws people and photographs them.
        lightness: unit vector of albedo coefficients along which skin gets lighter.
        seed: of the skins.
    """

    def __init__(self, drawn: SyntheticFaces, lightness: Float[Tensor, "albedo"], seed: int) -> None:
        self._drawn, self._lightness, self._seed = drawn, lightness, seed

    def people(self, step: int, size: int) -> People:
        """Those of `batch`."""
        theta = self._drawn.theta(step, size)
        random = torch.Generator().manual_seed(mixed(self._seed, step))
        place = (2 * torch.rand(size, generator=random) - 1) * _LARGEST_LIGHTNESS
        return People(theta.shape, theta.albedo + (place - theta.albedo @ self._lightness)[:, None] * self._lightness)

    def batch(self, step: int, size: int) -> FaceBatch:
        """`size` new people."""
        people = self.people(step, size)
        return self._drawn.faces_of(people.shape, people.albedo, step)


def _batches(weights: Weights, model: FaceModel, people: int, seed: int) -> Iterator[tuple[People, FaceBatch]]:
    """People, and their pictures as they reach the networks."""
    config = TrainingConfig(image_size=weights.image_size, networks=NetworksConfig(encoder=weights.encoder.config))
    drawn = PeopleOfAllTones(draw_people(config, model, seed, 0, 1), SkinSampler(model).lightness_axis(), seed)
    source = detected(config, model, drawn)
    for step in range(-(-people // _BATCH)):
        yield drawn.people(step, _BATCH), source.batch(step, _BATCH)


class _Judge:
    """Measures people by what networks make of them."""

    def __init__(self, weights: Weights, model: FaceModel) -> None:
        if weights.segmentation is None:
            raise EvaluationError(f"the weights {weights.name} have no segmentation network", "give weights of a stage that trains it")
        encoder, segmentation, frame = weights.encoder, weights.segmentation, CropFrame.of(model, weights.image_size)
        calls = EncoderOutputs(encoder), SegmentationLogits(segmentation)
        self._parts = Parts(model, frame, encoder, segmentation, *calls, None, nullcontext)
        self._face = model.triangles[model.triangle_in_face].unique()
        misfit = misfit_for("network", weights)
        self._misfit = 0.0 if misfit is None else misfit[self._face].double().numpy()
        self._mean = model.mean_shape[self._face].double().numpy()
        self._skin = SkinSampler(model)

    @torch.no_grad()
    def scores(self, true: People, batch: FaceBatch, direction: SexDirection | None = None) -> list[PersonScore]:
        """One score a person.

        Args:
            true: the people.
            batch: their pictures; another person where a detector found no face.
            direction: by which their sex is told; None where it is not.
        """
        seen = reconstruct(self._parts, batch)
        mask, is_found = segment(self._parts, seen), _is_found(true, batch)
        tones, answers = (typology_angle(self._skin(albedo)) for albedo in (true.albedo, seen.theta.albedo))
        truths, heads = self._faces(true.shape), self._faces(seen.theta.shape) - self._misfit
        sexes = [None] * len(batch) if direction is None else (true.shape @ direction.direction).tolist()
        scores = []
        for person, (tone, sex) in enumerate(zip(tones.tolist(), sexes, strict=True)):
            measures: dict[str, float] = {}
            if is_found[person]:
                shapes = {"shape": heads[person], "mean_head": self._mean}
                measures = {name: aligned_distance(face, truths[person]) for name, face in shapes.items()}
                measures |= {**_picture_measures(seen, mask, person), "tone_bias": float(answers[person]) - tone}
            scores.append(PersonScore(tone, sex, measures))
        return scores

    def _faces(self, shape: Float[Tensor, "b shape"]) -> Float[np.ndarray, "b vertices 3"]:
        """Neutral faces, mm."""
        return self._parts.model.decode_shape(shape)[:, self._face].double().numpy()


def _is_found(people: People, batch: FaceBatch) -> list[bool]:
    """Who of the people is in the batch: another one stands in where a detector saw no face."""
    assert batch.theta is not None
    is_found = (batch.theta.shape == people.shape).all(1)
    if batch.detected is not None:
        is_found &= batch.detected.isfinite().flatten(1).all(1)
    return is_found.tolist()


def aligned_distance(found: Float[np.ndarray, "v 3"], true: Float[np.ndarray, "v 3"]) -> float:
    """Mean distance of corresponding vertices, mm, after the similarity that brings `found` nearest to `true`."""
    return float(np.linalg.norm(fit_similarity(found, true).apply(found) - true, axis=1).mean())


def _picture_measures(seen: Reconstructed, mask: Float[Tensor, "b h w"], person: int) -> dict[str, float]:
    """F1 of the mask in the rendered region, and the colours' RMSE (0..255) where the face is truly seen."""
    assert seen.batch.mask is not None
    region, is_face = seen.region[person].numpy() > 0, seen.batch.mask[person].numpy() > 0.5
    face = region & (mask[person].numpy() > 0.5)
    scores = mask_scores(np.where(is_face, FACE, 0).astype(np.uint8), face, region & ~face)
    photo, rendering = (_bytes(picture[person]) for picture in (seen.photo, seen.rendering))
    return {"mask_f1": scores["F1"], "colour": colour_error(photo, rendering, region & is_face)}


def _bytes(picture: Float[Tensor, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return (picture.clamp(0, 1) * 255 + 0.5).byte().numpy()


def _groups(scores: Sequence[PersonScore]) -> dict[str, dict[str, tuple[PersonScore, ...]]]:
    """The people by skin tone and, where it is known, by sex; groups without anybody are left out."""
    tones = {name: tuple(score for score in scores if tone_of(score.tone) == name) for name in TONES}
    known = [score for score in scores if score.sex is not None]
    sexes = {name: tuple(score for score in known if ((score.sex or 0) > 0) == (name == SEXES[0])) for name in SEXES}
    return {"skin tone": {name: people for name, people in tones.items() if people}, **({"sex": sexes} if known else {})}


def _figures(people: Sequence[PersonScore]) -> dict[str, Any]:
    """Mean and standard error of every measure over the people that were found."""
    found = [person.measures for person in people if person.measures]
    values = {name: mean_and_error([measures[name] for measures in found]) for name in MEASURES}
    share = len(found) / len(people) if people else float("nan")
    return {"people": len(people), "found": share, **{name: {"mean": mean, "error": error} for name, (mean, error) in values.items()}}


def _columns(measure: str) -> list[str]:
    return [MEASURES[measure], "+-"] if measure == "shape" else [MEASURES[measure]]


def _cells(figures: Mapping[str, Any]) -> list[Cell]:
    return [figures[measure][kind] for measure in MEASURES for kind in ("mean", "error")[: len(_columns(measure))]]
