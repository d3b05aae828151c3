"""`focus-backend evaluate`: results against ground truth; a table for people or one JSON object for programs, and an exit code.

Exit code 0: every photo was judged. 2: some have no usable result; they are named, and no figure contains them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focus_backend.errors import ConfigError
from focus_backend.photo_paths import printable

if TYPE_CHECKING:
    from train.evaluate.per_photo import ScoreReport
    from train.evaluate.results import Failure
    from train.evaluate.statistics import PairedTest

REFINEMENTS = ("auto", "converged", "rounds")


def now(
    dataset: Path,
    results: Path,
    out: Path | None = None,
    jobs: int = 1,
    as_json: bool = False,
    against: Path | None = None,
    *,
    subset: str | None = None,
    refinement: str = "auto",
) -> int:
    """Shape errors by the NoW protocol; the exit code.

    Args:
        dataset: with scans.
        results: what `reconstruct` wrote.
        out: folder for `now.json`, `now_distances.npz` and `now_curve.png`; None for none.
        jobs: processes, 0 for as many as processors.
        as_json: print one JSON object.
        against: results of another run, or the folder its evaluation was written to, for a paired t-test.
        subset: of NoW: "val" or "test".
        refinement: one of `REFINEMENTS`; "auto" is what the dataset's own referee does.

    Raises:
        FocusError: dataset or results cannot be evaluated, or `out` cannot be written.
    """
    from train.evaluate import now as protocol
    from train.evaluate.datasets import read_set
    from train.evaluate.statistics import compare_runs

    if refinement not in REFINEMENTS:
        raise ConfigError(f"there is no refinement {refinement!r}", f"use one of {', '.join(REFINEMENTS)}")
    chosen: Any = None if refinement == "auto" else refinement
    photos = read_set(dataset, subset)
    report = protocol.evaluate_now(photos, results, jobs=jobs, refinement=chosen)
    tests: dict[str, PairedTest] = {}
    if against is not None:
        is_evaluated = (against / protocol.DISTANCES).is_file()
        other = protocol.evaluate_now(photos, against, jobs=jobs, refinement=chosen) if not is_evaluated else None
        tests = compare_runs(report.distances, protocol.read_distances(against) if other is None else other.distances)
    if out is not None:
        protocol.write_now(report, out)
    if as_json:
        paired = {"against": str(against), "tests": {over: asdict(test) for over, test in tests.items()}} if against else {}
        _say_json(protocol.now_document(report) | paired)
    else:
        print(protocol.now_table(report) + "\nmm; +- is the standard error over photos")
        for over, test in tests.items():
            print(f"paired t-test over {over}: {test.difference:+.4f} mm ({test.pairs} pairs), t = {test.t:.3f}, p = {test.p:.2e}")
    return _exit_code(report.failed)


def segmentation(
    dataset: Path, results: Path, out: Path | None = None, jobs: int = 1, as_json: bool = False, *, subset: str | None = None
) -> int:
    """Scores of the outlier masks inside the rendered region; the exit code. Arguments and errors as for `now`."""
    from train.evaluate.segmentation import evaluate_segmentation

    return _scores(evaluate_segmentation(dataset, results, subset=subset, jobs=jobs), out, as_json)


def photometric(
    dataset: Path,
    results: Path,
    out: Path | None = None,
    jobs: int = 1,
    as_json: bool = False,
    *,
    subset: str | None = None,
    model: str | None = None,
) -> int:
    """RMSE of the colours inside the true face; the exit code.

    Args:
        dataset, results, out, jobs, as_json, subset: as for `now`.
        model: face model of the results, a name or a file; None for the one they name.
    """
    from train.evaluate.photometric import evaluate_photometric

    return _scores(evaluate_photometric(dataset, results, subset=subset, jobs=jobs, model=model), out, as_json)


def compare(runs: Sequence[Path], out: Path | None = None, as_json: bool = False, *, pictures: int = 4) -> int:
    """Runs side by side, the first against each other; the exit code.

    Args:
        runs: folders that `now`, `segmentation` and `photometric` were written to with `--out`.
        out: folder for `compare.html`, `compare.md` and `compare.json`; None for none.
        as_json: print one JSON object.
        pictures: how many of the worst and of the best photos the page shows.

    Raises:
        FocusError: a run has no report, or they have no photo in common.
    """
    from train.evaluate import compare as comparing

    comparison = comparing.compare(comparing.read_runs(runs))
    if out is not None:
        comparing.write_comparison(comparison, out, pictures)
    if as_json:
        _say_json(comparing.comparison_document(comparison))
    else:
        print(comparing.comparison_text(comparison))
        if out is not None:
            print(f"\n{printable(str(out / 'compare.html'))}")
    return 0


def submission(dataset: Path, results: Path, out: Path, as_json: bool = False, *, subset: str | None = None) -> int:
    """The files of the NoW challenge; the exit code is 2 where photos are missing, for it takes complete submissions only.

    Args:
        dataset: the NoW folder.
        results: what `reconstruct` wrote for its photos.
        out: folder for the files.
        as_json: print one JSON object.
        subset: "val" or "test", which is the default.
    """
    from train.evaluate.submission import write_submission

    made = write_submission(dataset, results, out, subset=subset)
    if as_json:
        _say_json({"out": str(out), "written": len(made.written), "failed": [asdict(failure) for failure in made.failed]})
    else:
        print(f"{len(made.written)} meshes with landmarks in {printable(str(out))}, {len(made.failed)} missing")
    return _exit_code(made.failed)


def sweep(
    config: str,
    out: Path,
    dataset: Path,
    *,
    factors: Sequence[float] = (),
    weights: Sequence[str] = (),
    settings: Sequence[str] = (),
    subset: str | None = None,
    jobs: int = 1,
    device: str = "auto",
    as_json: bool = False,
) -> int:
    """Train with each weight of S's losses changed by itself and evaluate; resumable; the exit code is 2 where a case failed.

    Args:
        config: training configuration, a name or a file.
        out: one folder a case, `shared` for the stages before `em`, and `sweep.json`, `sweep.md` and `sweep.png`.
        dataset: photos with masks, or scans, or both.
        factors: multiples of the configured values; those of the paper's kind by default.
        weights: some of eta1 to eta5; all by default.
        settings: `section.key=value` over the configuration, for every case.
        subset: of the dataset.
        jobs: processes of the evaluation.
        device: of the reconstruction.
        as_json: print one JSON object.

    Raises:
        FocusError: the configuration or the dataset cannot be used, or `out` holds another sweep.
    """
    from train.evaluate import sweep as sweeping
    from train.evaluate.sweep_training import NetworkReconstruction, StagedTraining

    training = StagedTraining(config, tuple(settings), out / "shared")
    base, model = training.base(), training.config({}).model
    cases = sweeping.sweep_cases(base, tuple(factors) or sweeping.FACTORS, tuple(weights) or tuple(sweeping.WEIGHTS))
    photos = sweeping.set_from(dataset, subset)
    plan = sweeping.Sweep(base, training.fingerprint(), photos, out, training, NetworkReconstruction(model, device), jobs)
    rows = sweeping.run_sweep(plan, cases, lambda line: print(printable(line), file=sys.stderr, flush=True))
    if as_json:
        _say_json(sweeping.sweep_document(rows))
    else:
        print(sweeping.sweep_text(rows))
    return 2 if any(row.problem or row.failed_photos for row in rows) else 0


def fairness(weights: str, people: int, seed: int, out: Path | None = None, as_json: bool = False) -> int:
    """Errors on synthetic people by skin tone and by sex; the exit code.

    Args:
        weights: a name or a folder.
        people: how many are drawn.
        seed: of the people.
        out: folder for `fairness.json`; None for none.
        as_json: print one JSON object.

    Raises:
        FocusError: the weights or their face model cannot be used, or `out` cannot be written.
    """
    from train.evaluate import fairness as judging

    report = judging.evaluate_fairness(weights, people, seed)
    document = judging.fairness_document(report)
    if out is not None:
        judging.write_fairness(report, out)
    if as_json:
        _say_json(document)
    else:
        print(judging.fairness_table(document))
        if report.sex is None:
            print('by sex: not known, the face model\'s source is not installed (pip install "focus-backend[models]") or another')
    return 0


def _scores(report: ScoreReport, out: Path | None, as_json: bool) -> int:
    from train.evaluate.per_photo import score_document, score_table, write_scores

    if out is not None:
        write_scores(report, out)
    if as_json:
        _say_json(score_document(report))
    else:
        print(score_table(report))
    return _exit_code(report.failed)


def _exit_code(failed: Sequence[Failure]) -> int:
    """2 where photos failed, each of which is named on stderr."""
    for failure in failed:
        print(f"failed: {printable(failure.photo)}: {failure.reason}", file=sys.stderr)
    return 2 if failed else 0


def _say_json(document: dict[str, Any]) -> None:
    from train.evaluate.tables import to_json

    print(json.dumps(json.loads(to_json(document)), ensure_ascii=False), flush=True)
