"""What evaluations have in common that give each photo some scores: matching results, failures, averages by kind, tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from focus_backend.errors import FocusError
from focus_backend.photo_paths import printable
from train.evaluate.datasets import EvaluationPhoto, EvaluationSet, read_set
from train.evaluate.errors import EvaluationError
from train.evaluate.parallel import map_processes
from train.evaluate.results import Failure, ResultIndex
from train.evaluate.statistics import mean_and_error
from train.evaluate.tables import Cell, plain_table, to_json, write_file

Scorer = Callable[[EvaluationPhoto, Path], Mapping[str, float]]


@dataclass(frozen=True)
class PhotoScores:
    """The scores of one photo by name; nan where one has no meaning."""

    photo: str
    kind: str
    folder: Path
    scores: Mapping[str, float]


@dataclass(frozen=True)
class ScoreReport:
    """Scores by photo; averages are over photos, not over pixels.

    Attributes:
        evaluation: what was evaluated.
        dataset, results: the folders.
        names: of the scores.
        photos: the judged ones.
        failed: photos without a usable result, which no average contains.
    """

    evaluation: str
    dataset: str
    results: str
    names: tuple[str, ...]
    photos: tuple[PhotoScores, ...]
    failed: tuple[Failure, ...]

    def averages(self, kind: str | None = None) -> dict[str, tuple[float, float]]:
        """Mean and standard error of each score over the photos of a kind, or over all."""
        chosen = [photo for photo in self.photos if kind in (None, photo.kind)]
        return {name: mean_and_error([photo.scores[name] for photo in chosen]) for name in self.names}

    @property
    def kinds(self) -> list[str]:
        """Kinds that were judged."""
        return sorted({photo.kind for photo in self.photos})


def score_photos(
    evaluation: str,
    names: Sequence[str],
    scorer: Scorer,
    dataset: Path | EvaluationSet,
    results: Path,
    subset: str | None = None,
    jobs: int = 1,
) -> ScoreReport:
    """Scores of every photo with a mask.

    Args:
        evaluation: its name.
        names: of the scores that `scorer` gives.
        scorer: scores a photo by its result's folder; it is sent to other processes, so a function or a picklable object.
        dataset: with masks.
        results: what `focus-backend reconstruct` wrote.
        subset: of the dataset.
        jobs: processes, 0 for as many as processors.

    Raises:
        EvaluationError: wrong layout, no masks, no usable result.
    """
    photos = dataset if isinstance(dataset, EvaluationSet) else read_set(dataset, subset)
    masked = [photo for photo in photos.photos if photo.mask is not None]
    if not masked:
        raise EvaluationError(f"{printable(str(photos.folder))} has no ground-truth masks", "give a dataset with masks")
    _check_masks(masked)
    index = ResultIndex(results)
    tasks = [(scorer, photo, index.find(photo)) for photo in masked]
    answers = map_processes(_score, tasks, jobs)
    judged = tuple(answer for answer in answers if isinstance(answer, PhotoScores))
    failed = tuple(answer for answer in answers if isinstance(answer, Failure))
    if not judged:
        raise EvaluationError(
            f"no photo could be judged, the first for this: {failed[0].reason}", "check that the results are of this dataset"
        )
    return ScoreReport(evaluation, str(photos.folder), str(results), tuple(names), judged, failed)


def _check_masks(photos: list[EvaluationPhoto]) -> None:
    for photo in photos:
        missing = next((path for path in (photo.mask.files if photo.mask else ()) if not path.is_file()), None)
        if missing is not None:
            raise EvaluationError(
                f"the mask {printable(str(missing))} is missing", "complete the dataset, or take the photo out of its list"
            )


def _score(task: tuple[Scorer, EvaluationPhoto, Path | None]) -> PhotoScores | Failure:
    scorer, photo, folder = task
    if folder is None:
        return Failure(photo.name, "no result of this photo")
    try:
        return PhotoScores(photo.name, photo.kind, folder, scorer(photo, folder))
    except FocusError as error:
        return Failure(photo.name, error.problem)


def score_document(report: ScoreReport) -> dict[str, Any]:
    """The report for programs."""

    def block(kind: str | None) -> dict[str, Any]:
        count = sum(kind in (None, photo.kind) for photo in report.photos)
        averages = {name: {"mean": mean, "standard_error": error} for name, (mean, error) in report.averages(kind).items()}
        return {"photos": count, **averages}

    return {
        "evaluation": report.evaluation,
        "dataset": report.dataset,
        "results": report.results,
        "judged": len(report.photos),
        "failed": [asdict(failure) for failure in report.failed],
        "total": block(None),
        "by_kind": {kind: block(kind) for kind in report.kinds},
        "photos": [{"photo": photo.photo, "kind": photo.kind, "folder": str(photo.folder), **photo.scores} for photo in report.photos],
    }


def score_table(report: ScoreReport) -> str:
    """The report for people."""
    kinds = [None, *(report.kinds if len(report.kinds) > 1 else [])]
    rows: list[list[Cell]] = []
    for kind in kinds:
        count = sum(kind in (None, photo.kind) for photo in report.photos)
        rows.append([kind or "all", count, *(mean for mean, _ in report.averages(kind).values())])
    return plain_table(("", "photos", *report.names), rows)


def write_scores(report: ScoreReport, out: Path) -> None:
    """Write `<evaluation>.json` into `out`.

    Raises:
        OutputError: it cannot be written.
    """
    write_file(out / f"{report.evaluation}.json", to_json(score_document(report)))
