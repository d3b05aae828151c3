"""Several evaluated runs side by side: one table over the photos they share, tests against the first, and the pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from focus_backend.photo_paths import printable
from train.evaluate import now, photometric, segmentation
from train.evaluate.charts import draw_curves
from train.evaluate.errors import EvaluationError
from train.evaluate.statistics import PairedTest, compare_runs, cumulative_curve, mean_and_error
from train.evaluate.tables import Cell, markdown_table, plain_table, to_json, write_file

EVALUATIONS = ("now", "segmentation", "photometric")
SHAPE_COLUMNS = ("median", "mean", "std")
PICTURES = 4


@dataclass(frozen=True)
class Run:
    """What `evaluate now`, `segmentation` and `photometric` left in one folder.

    Attributes:
        name: its folder's, made different from the other runs'.
        folder: where the reports lie.
        reports: by evaluation.
        distances: of each photo, mm; empty without `now`.
    """

    name: str
    folder: Path
    reports: Mapping[str, Mapping[str, Any]]
    distances: Mapping[str, np.ndarray]

    def scores(self, evaluation: str) -> dict[str, Mapping[str, Any]]:
        """The photos' entries of an evaluation by name."""
        return {str(entry["photo"]): entry for entry in self.reports.get(evaluation, {}).get("photos", [])}


@dataclass(frozen=True)
class Comparison:
    """Runs over the photos they share.

    Attributes:
        runs: in the order given.
        columns: names of the figures.
        figures: of each run, one a column; nan where a run was not evaluated so.
        shared: number of photos that every run with that evaluation has, by evaluation.
        failed: number of photos without a usable result, the most of a run's evaluations.
        tests: of each later run, the first run against it, over photos and over points.
        ranking: photos from worst to best.
    """

    runs: tuple[Run, ...]
    columns: tuple[str, ...]
    figures: tuple[tuple[float, ...], ...]
    shared: Mapping[str, int]
    failed: tuple[int, ...]
    tests: Mapping[str, Mapping[str, PairedTest]]
    ranking: tuple[str, ...]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs of folders that evaluations were written to.

    Raises:
        EvaluationError: a folder has no report, or a damaged one.
    """
    names = _different_names(folders)
    return [_read_run(folder, name) for folder, name in zip(folders, names, strict=True)]


def compare(runs: Sequence[Run]) -> Comparison:
    """Figures of all runs over the photos they share.

    Raises:
        EvaluationError: no runs, runs over different datasets, or without a photo in common.
    """
    if not runs:
        raise EvaluationError("no runs to compare", "give the folders that evaluations were written to")
    shared = {name: _shared_photos(runs, name) for name in EVALUATIONS if any(name in run.reports for run in runs)}
    columns = _columns(shared)
    figures = tuple(tuple(_figures(run, shared).get(column, float("nan")) for column in columns) for run in runs)
    first = runs[0]
    tests = {run.name: compare_runs(first.distances, run.distances) for run in runs[1:] if first.distances and run.distances}
    return Comparison(
        runs=tuple(runs),
        columns=columns,
        figures=figures,
        shared={name: len(photos) for name, photos in shared.items()},
        failed=tuple(max(len(report.get("failed", [])) for report in run.reports.values()) for run in runs),
        tests=tests,
        ranking=_ranking(runs, shared),
    )


def comparison_rows(comparison: Comparison) -> tuple[list[str], list[list[Cell]]]:
    """Head and rows of the table."""
    rows: list[list[Cell]] = [
        [run.name, *figures, failed] for run, figures, failed in zip(comparison.runs, comparison.figures, comparison.failed, strict=True)
    ]
    return ["run", *comparison.columns, "failed"], rows


def test_rows(comparison: Comparison) -> tuple[list[str], list[list[Cell]]]:
    """Head and rows of the tests of the first run against each other one."""
    rows: list[list[Cell]] = [
        [f"{comparison.runs[0].name} - {name}", over, test.pairs, test.difference, test.t, test.p]
        for name, tests in comparison.tests.items()
        for over, test in tests.items()
    ]
    return ["paired t-test", "over", "pairs", "mm", "t", "p"], rows


def comparison_text(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    parts = [plain_table(*comparison_rows(comparison))]
    if comparison.tests:
        parts.append(plain_table(*test_rows(comparison)))
    return "\n\n".join(parts)


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """The comparison for programs."""
    head, rows = comparison_rows(comparison)
    return {
        "evaluation": "compare",
        "photos": dict(comparison.shared),
        "runs": [{**dict(zip(head, row, strict=True)), "folder": str(run.folder)} for row, run in zip(rows, comparison.runs, strict=True)],
        "tests": {name: {over: asdict(test) for over, test in tests.items()} for name, tests in comparison.tests.items()},
        "worst_to_best": list(comparison.ranking),
    }


def write_comparison(comparison: Comparison, out: Path, pictures: int = PICTURES) -> None:
    """Write `compare.md`, `compare.json` and `compare.html` into `out`.

    Raises:
        OutputError: they cannot be written.
    """
    from train.evaluate.compare_page import comparison_page

    text = ["# Comparison", "", markdown_table(*comparison_rows(comparison)), ""]
    if comparison.tests:
        text += [markdown_table(*test_rows(comparison)), ""]
    text.append(f"Photos that all runs share: {', '.join(f'{count} ({name})' for name, count in comparison.shared.items())}.")
    write_file(out / "compare.md", "\n".join(text) + "\n")
    write_file(out / "compare.json", to_json(comparison_document(comparison)))
    write_file(out / "compare.html", comparison_page(comparison, pictures))


def comparison_curves(comparison: Comparison) -> bytes | None:
    """Cumulative curves of the runs over the photos they share, as PNG; None without shapes."""
    with_shape = [run for run in comparison.runs if run.distances]
    if not with_shape:
        return None
    shared = set.intersection(*(set(run.distances) for run in with_shape))
    return draw_curves({run.name: cumulative_curve([run.distances[name] for name in sorted(shared)]) for run in with_shape})


def _read_run(folder: Path, name: str) -> Run:
    reports: dict[str, Mapping[str, Any]] = {}
    for evaluation in EVALUATIONS:
        path = folder / f"{evaluation}.json"
        if not path.exists():
            continue
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(document["photos"], list) or not isinstance(document["failed"], list):
                raise TypeError("photos")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EvaluationError(f"{printable(str(path))} is damaged", f"run `focus-backend evaluate {evaluation}` again") from error
        reports[evaluation] = document
    if not reports:
        remedy = "run `focus-backend evaluate now`, `segmentation` or `photometric` with --out first"
        raise EvaluationError(f"{printable(str(folder))} has no report of an evaluation", remedy)
    return Run(name, folder, reports, now.read_distances(folder) if "now" in reports else {})


def _different_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as much of the path before as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max((len(p) for p in parts), default=1) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise EvaluationError("a run was given twice", "give different folders")


def _shared_photos(runs: Sequence[Run], evaluation: str) -> list[str]:
    """Photos that all runs with this evaluation have."""
    reports = [run for run in runs if evaluation in run.reports]
    shared = sorted(set.intersection(*(set(run.scores(evaluation)) for run in reports)))
    if not shared:
        raise EvaluationError(f"the runs have no photo in common in {evaluation}", "compare runs over one dataset")
    return shared


def _columns(shared: Mapping[str, object]) -> tuple[str, ...]:
    by_evaluation = {"now": SHAPE_COLUMNS, "segmentation": segmentation.SCORES, "photometric": photometric.SCORES}
    return tuple(column for name, columns in by_evaluation.items() if name in shared for column in columns)


def _figures(run: Run, shared: Mapping[str, list[str]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    if run.distances:
        pooled = np.concatenate([run.distances[name] for name in shared["now"]])
        values = (np.median(pooled), pooled.mean(), pooled.std())
        figures |= {name: float(value) for name, value in zip(SHAPE_COLUMNS, values, strict=True)}
    for evaluation, names in (("segmentation", segmentation.SCORES), ("photometric", photometric.SCORES)):
        if evaluation in run.reports:
            entries = run.scores(evaluation)
            chosen = [entries[photo] for photo in shared[evaluation]]
            figures |= {name: mean_and_error([number(entry.get(name)) for entry in chosen])[0] for name in names}
    return figures


def _ranking(runs: Sequence[Run], shared: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Shared photos from worst to best by the mean over the runs of the first evaluation there is."""
    measures = {"now": ("mean", 1.0), "segmentation": ("F1", -1.0), "photometric": ("RMSE", 1.0)}
    evaluation = next(iter(shared))
    key, sign = measures[evaluation]
    tables = [run.scores(evaluation) for run in runs if evaluation in run.reports]
    badness = {photo: sign * mean_and_error([number(table[photo].get(key)) for table in tables])[0] for photo in shared[evaluation]}
    return tuple(sorted((photo for photo in badness if np.isfinite(badness[photo])), key=lambda photo: (-badness[photo], photo)))


def number(value: object) -> float:
    """A number of a report; nan for null."""
    return float(value) if isinstance(value, int | float) else float("nan")
