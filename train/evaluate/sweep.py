"""Each weight of S's losses by itself, eta1 to eta5, while the others keep their values, as in the paper's supplement."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from focus_backend.errors import FocusError
from focus_backend.photo_paths import printable
from train.evaluate.charts import draw_lines, new_figure, to_png
from train.evaluate.datasets import EvaluationPhoto, EvaluationSet, read_set
from train.evaluate.errors import EvaluationError
from train.evaluate.now import evaluate_now, write_now
from train.evaluate.per_photo import write_scores
from train.evaluate.segmentation import SCORES, evaluate_segmentation
from train.evaluate.tables import Cell, markdown_table, plain_table, to_json, write_file

# eta1 to eta5, as the configuration names them.
WEIGHTS = {"eta1": "neighbour", "eta2": "distance", "eta3": "area", "eta4": "preserve", "eta5": "binary"}
SECTION = "losses.segmentation"
FACTORS = (0.0, 0.5, 1.0, 2.0, 4.0)
SHAPE_SCORES = ("median", "mean", "std")
CASE, REPORT = "case.json", "sweep.json"

RunTraining = Callable[[Mapping[str, float], Path], Path]
"""Trains with overrides such as {"losses.segmentation.area": 1.0} in a folder, going on where it was left; gives the weights folder."""
Reconstruct = Callable[[Path, Sequence[Path], Path], None]
"""Reconstructs photos with a weights folder into a folder of results, leaving alone those that are there."""


@dataclass(frozen=True)
class SweepCase:
    """One training: a weight at a multiple of its value; the case in which nothing is changed is called "base".

    Attributes:
        weight: "eta1" to "eta5", or "base".
        factor: of the configured value.
        value: of the weight; nan for "base".
    """

    weight: str
    factor: float
    value: float

    @property
    def name(self) -> str:
        """Its folder."""
        return "base" if self.weight == "base" else f"{self.weight}-x{self.factor:g}"

    @property
    def overrides(self) -> dict[str, float]:
        """What differs from the configuration."""
        return {} if self.weight == "base" else {f"{SECTION}.{WEIGHTS[self.weight]}": self.value}


@dataclass(frozen=True)
class SweepRow:
    """What came of a case: scores by name, or why there are none."""

    case: SweepCase
    scores: Mapping[str, float]
    failed_photos: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Sweep:
    """What a sweep works with.

    Attributes:
        base: configured value of every weight, by "eta1" to "eta5".
        fingerprint: of everything else that decides the training; a folder of another one is refused.
        photos: to evaluate on.
        out: one folder a case.
        run_training, reconstruct: see above.
        jobs: processes of the evaluation.
    """

    base: Mapping[str, float]
    fingerprint: str
    photos: EvaluationSet
    out: Path
    run_training: RunTraining
    reconstruct: Reconstruct
    jobs: int = 1


def sweep_cases(base: Mapping[str, float], factors: Sequence[float], weights: Sequence[str] = tuple(WEIGHTS)) -> list[SweepCase]:
    """The cases: the unchanged configuration once, then every weight at every other factor.

    Raises:
        EvaluationError: an unknown weight, or a factor below 0; a weight that is 0 and so has no multiples is left out.
    """
    unknown = [name for name in weights if name not in WEIGHTS]
    if unknown:
        raise EvaluationError(f"there is no weight {unknown[0]!r}", f"give some of: {', '.join(WEIGHTS)}")
    if any(not 0 <= factor < float("inf") for factor in factors):
        raise EvaluationError("a factor of a sweep is negative or not finite", "give factors such as 0 0.5 2")
    others = sorted({float(factor) for factor in factors} - {1.0})
    cases = [SweepCase(name, factor, factor * base[name]) for name in weights if base[name] for factor in others]
    return [SweepCase("base", 1.0, float("nan")), *cases]


def run_sweep(sweep: Sweep, cases: Sequence[SweepCase], told: Callable[[str], None] = lambda line: None) -> list[SweepRow]:
    """Train, reconstruct and evaluate every case that was not done before, and write the table after each.

    A case that fails is noted and the others are done; the next call tries it again.

    Args:
        sweep: what to work with.
        cases: in order.
        told: is given a line a case.

    Raises:
        EvaluationError: the folder holds another sweep.
        OutputError: it cannot be written.
    """
    rows: list[SweepRow] = []
    for case in cases:
        done = _read_case(sweep, case)
        told(f"{case.name}: {'done before' if done else 'training'}")
        rows.append(done or _run_case(sweep, case))
        if rows[-1].problem:
            told(f"{case.name}: {rows[-1].problem}")
        write_sweep(rows, sweep.out)
    return rows


def _run_case(sweep: Sweep, case: SweepCase) -> SweepRow:
    folder = sweep.out / case.name
    try:
        weights = sweep.run_training(case.overrides, folder / "training")
        results = folder / "results"
        sweep.reconstruct(weights, [photo.photo for photo in sweep.photos.photos], results)
        row = _evaluate(sweep, case, results, folder)
    except FocusError as error:
        return SweepRow(case, {}, problem=error.problem)
    write_file(folder / CASE, to_json(_settings(sweep, case) | {"scores": dict(row.scores), "failed_photos": row.failed_photos}))
    return row


def _evaluate(sweep: Sweep, case: SweepCase, results: Path, folder: Path) -> SweepRow:
    """Scores of what the photos have truth for."""
    scores: dict[str, float] = {}
    failed = set()
    masked, scanned = (_only(sweep.photos, name) for name in ("mask", "scan"))
    if masked.photos:
        masks = evaluate_segmentation(masked, results, jobs=sweep.jobs)
        write_scores(masks, folder)
        scores |= {name: mean for name, (mean, _) in masks.averages().items()}
        failed |= {failure.photo for failure in masks.failed}
    if scanned.photos:
        shapes = evaluate_now(scanned, results, jobs=sweep.jobs)
        write_now(shapes, folder)
        scores |= {name: getattr(shapes.total, name) for name in SHAPE_SCORES}
        failed |= {failure.photo for failure in shapes.failed}
    if not scores:
        raise EvaluationError("the photos have neither masks nor scans", "give a dataset with ground truth")
    return SweepRow(case, scores, len(failed))


def _only(photos: EvaluationSet, truth: str) -> EvaluationSet:
    def has(photo: EvaluationPhoto) -> bool:
        return getattr(photo, truth) is not None

    return EvaluationSet(photos.folder, photos.layout, tuple(photo for photo in photos.photos if has(photo)))


def _settings(sweep: Sweep, case: SweepCase) -> dict[str, Any]:
    """What the figures of a case depend on."""
    photos = hashlib.sha256("\n".join(photo.name for photo in sweep.photos.photos).encode()).hexdigest()
    return {"case": case.name, "overrides": case.overrides, "fingerprint": sweep.fingerprint, "photos": photos}


def _read_case(sweep: Sweep, case: SweepCase) -> SweepRow | None:
    """The case as it was done before; None if it was not."""
    path = sweep.out / case.name / CASE
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        scores = {str(name): float("nan") if value is None else float(value) for name, value in document["scores"].items()}
        row = SweepRow(case, scores, int(document["failed_photos"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(f"{printable(str(path))} is damaged", "delete it, and the case is evaluated again") from error
    if any(document.get(key) != value for key, value in _settings(sweep, case).items()):
        problem = f"{printable(str(path.parent))} is of another configuration or other photos"
        raise EvaluationError(problem, "give a new folder with --out")
    return row


def sweep_rows(rows: Sequence[SweepRow]) -> tuple[list[str], list[list[Cell]]]:
    """Head and rows of the table; only scores that some case has."""
    names = [name for name in (*SCORES, *SHAPE_SCORES) if any(name in row.scores for row in rows)]
    cells: list[list[Cell]] = [
        [row.case.weight, row.case.factor, row.case.value, *(row.scores.get(name) for name in names), row.problem or row.failed_photos]
        for row in rows
    ]
    return ["weight", "factor", "value", *names, "failed"], cells


def sweep_text(rows: Sequence[SweepRow]) -> str:
    """The table for a terminal."""
    return plain_table(*sweep_rows(rows))


def sweep_document(rows: Sequence[SweepRow]) -> dict[str, Any]:
    """The table for programs."""
    cases = [{**asdict(row.case), "scores": dict(row.scores), "failed_photos": row.failed_photos, "problem": row.problem} for row in rows]
    return {"evaluation": "sweep", "cases": cases}


def write_sweep(rows: Sequence[SweepRow], out: Path) -> None:
    """Write `sweep.json`, `sweep.md` and `sweep.png` into `out`.

    Raises:
        OutputError: they cannot be written.
    """
    write_file(out / REPORT, to_json(sweep_document(rows)))
    write_file(out / "sweep.md", "# Weights of the losses of S, one at a time\n\n" + markdown_table(*sweep_rows(rows)) + "\n")
    write_file(out / "sweep.png", draw_sweep(rows))


def draw_sweep(rows: Sequence[SweepRow]) -> bytes:
    """F1, and the mean shape error where it is known, against the factor, a line a weight, as PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    measures = [(name, label) for name, label in (("F1", "F1"), ("mean", "mean error in mm")) if any(name in r.scores for r in rows)]
    figure = new_figure(5.5 * max(1, len(measures)), 4)
    for place, (name, label) in enumerate(measures):
        draw_lines(figure.add_subplot(1, len(measures), place + 1), _lines(rows, name), "factor", label)
    return to_png(figure)


def _lines(rows: Sequence[SweepRow], score: str) -> dict[str, list[tuple[float, float]]]:
    """Factor and score of each weight's cases, the unchanged configuration among them."""
    known = [row for row in rows if score in row.scores]
    swept = [weight for weight in WEIGHTS if any(row.case.weight == weight for row in known)]
    return {
        f"{weight} ({WEIGHTS[weight]})": sorted((r.case.factor, r.scores[score]) for r in known if r.case.weight in (weight, "base"))
        for weight in swept
    }


def set_from(folder: Path, subset: str | None) -> EvaluationSet:
    """The photos to evaluate on, all of which have to be there.

    Raises:
        EvaluationError: wrong layout, or a photo is missing.
    """
    photos = read_set(folder, subset)
    missing = next((photo for photo in photos.photos if not photo.photo.is_file()), None)
    if missing is not None:
        raise EvaluationError(f"the photo {printable(str(missing.photo))} is missing", "complete the dataset, or take it out of its list")
    return photos


def share_stages(source: Path, target: Path, stages: Sequence[str]) -> None:
    """Give one training run the finished stages of another, and its pool of synthetic faces; those that are there stay."""
    for stage in stages:
        if (source / stage).is_dir() and not (target / stage).exists():
            beside = target / f".{stage}"
            shutil.rmtree(beside, ignore_errors=True)
            # Checkpoints are only for going on with the stage, which is done.
            shutil.copytree(source / stage, beside, ignore=shutil.ignore_patterns("checkpoints", "events.*"))
            beside.rename(target / stage)
    for pool in source.glob("faces-*"):
        if not (target / pool.name).exists():
            shutil.copytree(pool, target / pool.name, copy_function=_link)


def _link(source: str, target: str) -> None:
    """The same file under another name, or a copy where the disk has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
