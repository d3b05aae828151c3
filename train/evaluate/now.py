"""The NoW protocol over a dataset: how far the neutral meshes are from the scans, pooled, by subset and by turn of the head."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from focus_backend.errors import FocusError, MissingDependencyError
from focus_backend.photo_paths import printable
from train.evaluate.charts import draw_bars, draw_curves
from train.evaluate.datasets import EvaluationPhoto, EvaluationSet, read_set
from train.evaluate.errors import EvaluationError
from train.evaluate.meshes import read_landmarks, read_mesh
from train.evaluate.parallel import map_processes
from train.evaluate.results import Failure, ResultIndex, read_document, read_neutral
from train.evaluate.shape_error import CroppedScan, Refinement, crop_scan, scan_to_mesh
from train.evaluate.statistics import ShapeSummary, cumulative_curve, summarise, yaw_bin
from train.evaluate.tables import Cell, plain_table, to_json, write_file

REPORT, DISTANCES, CURVE, GROUPS = "now.json", "now_distances.npz", "now_curve.png", "now_groups.png"
HEAD = ("", "photos", "median", "+-", "mean", "+-", "std")


@dataclass(frozen=True)
class PhotoShape:
    """One judged photo.

    Attributes:
        photo: its name in the dataset.
        kind, subject: as the dataset has them.
        yaw: degrees; of the dataset, or of the result's own camera where the dataset has none.
        folder: of the result.
        distances: of every scan point inside the sphere, mm.
    """

    photo: str
    kind: str
    subject: str
    yaw: float | None
    folder: Path
    distances: Float[np.ndarray, "points"]


@dataclass(frozen=True)
class NowReport:
    """Errors in mm; `failed` are photos without a usable result, which no figure contains.

    Attributes:
        dataset, results: the folders.
        refinement: of the alignment.
        photos: the judged ones, in the dataset's order.
        failed: the others.
        total: of all judged photos.
        by_kind, by_yaw: of the subsets and of bins of absolute yaw in degrees.
        thresholds, percentages: cumulative curve: share of points with an error not above.
    """

    dataset: str
    results: str
    refinement: str
    photos: tuple[PhotoShape, ...]
    failed: tuple[Failure, ...]
    total: ShapeSummary
    by_kind: Mapping[str, ShapeSummary]
    by_yaw: Mapping[str, ShapeSummary]
    thresholds: list[float] = field(default_factory=list)
    percentages: list[float] = field(default_factory=list)

    @property
    def distances(self) -> dict[str, np.ndarray]:
        """Distances of each photo by name."""
        return {photo.photo: photo.distances for photo in self.photos}


@dataclass(frozen=True)
class _SubjectTask:
    """All photos of one scan, so that it is read once."""

    photos: tuple[tuple[EvaluationPhoto, Path], ...]
    refinement: Refinement


def evaluate_now(
    dataset: Path | EvaluationSet, results: Path, *, subset: str | None = None, jobs: int = 1, refinement: Refinement | None = None
) -> NowReport:
    """Judge the results of a dataset by the NoW protocol.

    Args:
        dataset: with scans; a folder in one of the layouts, or read already.
        results: what `focus-backend reconstruct` wrote for its photos.
        subset: of the dataset.
        jobs: processes, 0 for as many as processors.
        refinement: without one, "rounds" for our layout, as its referee has it, and "converged" for NoW, as the challenge has it.

    Raises:
        EvaluationError: wrong layout, no scans, a scan that cannot be read, no usable result at all.
        MissingDependencyError: libigl is not installed.
    """
    photos = dataset if isinstance(dataset, EvaluationSet) else read_set(dataset, subset)
    chosen: Refinement = refinement or ("converged" if photos.layout == "now" else "rounds")
    _check_scans(photos)
    index = ResultIndex(results)
    failed: list[Failure] = []
    by_scan: dict[Path | None, list[tuple[EvaluationPhoto, Path]]] = defaultdict(list)
    for photo in photos.photos:
        folder = index.find(photo)
        if folder is None:
            failed.append(Failure(photo.name, "no result of this photo"))
        else:
            by_scan[photo.scan].append((photo, folder))
    tasks = [_SubjectTask(tuple(group), chosen) for group in by_scan.values()]
    answers = [answer for group in map_processes(_judge_subject, tasks, jobs) for answer in group]
    failed += [answer for answer in answers if isinstance(answer, Failure)]
    order = {photo.name: place for place, photo in enumerate(photos.photos)}
    judged = sorted((answer for answer in answers if isinstance(answer, PhotoShape)), key=lambda answer: order[answer.photo])
    if not judged:
        raise EvaluationError(
            f"no photo could be judged, the first for this: {failed[0].reason}", "check that the results are of this dataset"
        )
    failed.sort(key=lambda failure: order[failure.photo])
    return _report(photos, results, chosen, judged, failed)


def _check_scans(photos: EvaluationSet) -> None:
    """Every photo has to have ground truth: figures without one of the subjects could not be compared with others."""
    for photo in photos.photos:
        for path, what in ((photo.scan, "scan"), (photo.landmarks, "landmarks of the scan")):
            if path is None or not path.is_file():
                where = f": {printable(str(path))} is missing" if path is not None else ""
                problem = f"there is no {what} for photo {printable(photo.name)}{where}"
                raise EvaluationError(problem, "give a dataset with scans; those of the NoW test set stay with the challenge")


def _judge_subject(task: _SubjectTask) -> list[PhotoShape | Failure]:
    first = task.photos[0][0]
    assert first.scan is not None
    assert first.landmarks is not None
    scan = crop_scan(read_mesh(first.scan).vertices, read_landmarks(first.landmarks), printable(str(first.scan)))
    return [_judge_photo(scan, photo, folder, task.refinement) for photo, folder in task.photos]


def _judge_photo(scan: CroppedScan, photo: EvaluationPhoto, folder: Path, refinement: Refinement) -> PhotoShape | Failure:
    try:
        mesh, landmarks = read_neutral(folder)
        distances = scan_to_mesh(scan, mesh, landmarks, refinement)
        yaw = photo.yaw if photo.yaw is not None else result_yaw(read_document(folder))
    except MissingDependencyError:
        raise
    except FocusError as error:
        return Failure(photo.name, error.problem)
    except np.linalg.LinAlgError:
        return Failure(photo.name, "the mesh cannot be aligned with the scan")
    if not np.isfinite(distances).all():
        return Failure(photo.name, "the mesh cannot be aligned with the scan")
    return PhotoShape(photo.name, photo.kind, photo.subject, yaw, folder, distances)


def result_yaw(document: Mapping[str, Any]) -> float | None:
    """The head's turn in degrees by the camera of a result, positive when the subject looks to the picture's right; None without one."""
    try:
        forward = np.array(document["camera"]["rotation"], dtype=np.float64)[:, 2]
        return math.degrees(math.atan2(forward[0], forward[2]))
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _report(photos: EvaluationSet, results: Path, refinement: Refinement, judged: list[PhotoShape], failed: list[Failure]) -> NowReport:
    distances = [photo.distances for photo in judged]
    kinds, bins = [photo.kind for photo in judged], [yaw_bin(photo.yaw) for photo in judged]

    def of(names: list[str] | list[str | None]) -> dict[str, ShapeSummary]:
        wanted = sorted({name for name in names if name is not None})
        return {name: summarise([d for d, other in zip(distances, names, strict=True) if other == name]) for name in wanted}

    thresholds, percentages = cumulative_curve(distances)
    return NowReport(
        dataset=str(photos.folder),
        results=str(results),
        refinement=refinement,
        photos=tuple(judged),
        failed=tuple(failed),
        total=summarise(distances),
        by_kind=of(kinds),
        by_yaw=of(bins),
        thresholds=thresholds,
        percentages=percentages,
    )


def now_document(report: NowReport) -> dict[str, Any]:
    """The report for programs: everything but the single points."""
    photos = [
        {
            "photo": photo.photo,
            "kind": photo.kind,
            "subject": photo.subject,
            "yaw": photo.yaw,
            "folder": str(photo.folder),
            "points": len(photo.distances),
            "median": float(np.median(photo.distances)),
            "mean": float(photo.distances.mean()),
            "std": float(photo.distances.std()),
        }
        for photo in report.photos
    ]
    return {
        "evaluation": "now",
        "dataset": report.dataset,
        "results": report.results,
        "refinement": report.refinement,
        "judged": len(report.photos),
        "failed": [asdict(failure) for failure in report.failed],
        "total": asdict(report.total),
        "by_kind": {name: asdict(summary) for name, summary in report.by_kind.items()},
        "by_yaw": {name: asdict(summary) for name, summary in report.by_yaw.items()},
        "curve": {"thresholds_mm": report.thresholds, "percent": report.percentages},
        "photos": photos,
    }


def now_table(report: NowReport) -> str:
    """The report for people."""
    rows = [_row("all", report.total)]
    rows += [_row(name, summary) for name, summary in report.by_kind.items()] if len(report.by_kind) > 1 else []
    rows += [_row(f"yaw {name}", summary) for name, summary in report.by_yaw.items()]
    return plain_table(HEAD, rows)


def _row(name: str, summary: ShapeSummary) -> list[Cell]:
    return [name, summary.photos, summary.median, summary.median_error, summary.mean, summary.mean_error, summary.std]


def write_now(report: NowReport, out: Path) -> None:
    """Write `now.json`, every distance as `now_distances.npz`, `now_curve.png` and `now_groups.png` into `out`.

    Raises:
        OutputError: they cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    buffer = io.BytesIO()
    names = np.array([photo.photo for photo in report.photos])
    lengths = np.array([len(photo.distances) for photo in report.photos])
    pooled = np.concatenate([photo.distances for photo in report.photos]).astype(np.float32)
    np.savez_compressed(buffer, photos=names, points=lengths, distances=pooled)
    write_file(out / DISTANCES, buffer.getvalue())
    write_file(out / CURVE, draw_curves({Path(report.results).name or "results": (report.thresholds, report.percentages)}))
    write_file(out / GROUPS, draw_bars(_group_bars(report), "mean error in mm"))
    write_file(out / REPORT, to_json(now_document(report)))


def _group_bars(report: NowReport) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and standard error of every subset, by what splits them."""
    groups = {"subset": {"all": report.total, **report.by_kind}, "yaw in degrees": report.by_yaw}
    return {title: {name: (s.mean, s.mean_error) for name, s in group.items()} for title, group in groups.items() if group}


def read_distances(folder: Path) -> dict[str, np.ndarray]:
    """Distances of each photo by name, from what `write_now` wrote.

    Raises:
        EvaluationError: they are missing or damaged.
    """
    path = folder / DISTANCES
    try:
        with np.load(path, allow_pickle=False) as data:
            parts = np.split(data["distances"].astype(np.float64), np.cumsum(data["points"])[:-1])
            return dict(zip(data["photos"].tolist(), parts, strict=True))
    except Exception as error:  # a damaged archive fails in many ways
        problem = f"{printable(str(path))} is missing or damaged"
        raise EvaluationError(problem, "run `focus-backend evaluate now` for it again") from error
