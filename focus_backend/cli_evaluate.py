"""`focus-backend evaluate`. Options only, as in `cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from focus_backend.cli_options import DebugFlag, JsonFlag, SetOption, reported

evaluate_app = typer.Typer(help="Measure results against ground truth, compare runs.", no_args_is_help=True)

DatasetArgument = Annotated[Path, typer.Argument(help="Folder with the ground truth, see docs/evaluation.md.", show_default=False)]
ResultsArgument = Annotated[Path, typer.Argument(help="Folder that `reconstruct` wrote.", show_default=False)]
ReportOption = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the report.", show_default=False)]
JobsOption = Annotated[int, typer.Option(min=0, help="Processes, 0 for as many as processors.")]
SubsetOption = Annotated[str | None, typer.Option(help="A part of the data set, such as val or test.", show_default=False)]


@evaluate_app.command("now")
def evaluate_now(
    dataset: DatasetArgument,
    results: ResultsArgument,
    out: ReportOption = None,
    against: Annotated[Path | None, typer.Option(help="Another run's results, for a paired t-test.", show_default=False)] = None,
    subset: SubsetOption = None,
    refinement: Annotated[str, typer.Option(help="auto, converged or rounds: how far the alignment is refined.")] = "auto",
    jobs: JobsOption = 1,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Shape against scans, by the NoW protocol, in millimetres."""
    with reported(debug):
        from focus_backend.commands import evaluate

        raise typer.Exit(evaluate.now(dataset, results, out, jobs, as_json, against, subset=subset, refinement=refinement))


@evaluate_app.command("segmentation")
def evaluate_segmentation(
    dataset: DatasetArgument,
    results: ResultsArgument,
    out: ReportOption = None,
    subset: SubsetOption = None,
    jobs: JobsOption = 1,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Masks against true masks, inside the rendered region."""
    with reported(debug):
        from focus_backend.commands import evaluate

        raise typer.Exit(evaluate.segmentation(dataset, results, out, jobs, as_json, subset=subset))


@evaluate_app.command("photometric")
def evaluate_photometric(
    dataset: DatasetArgument,
    results: ResultsArgument,
    out: ReportOption = None,
    model: Annotated[str | None, typer.Option(help="Face model of the results, if it is another file now.", show_default=False)] = None,
    subset: SubsetOption = None,
    jobs: JobsOption = 1,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Colours of the reconstruction against the photo's, inside the true face."""
    with reported(debug):
        from focus_backend.commands import evaluate

        raise typer.Exit(evaluate.photometric(dataset, results, out, jobs, as_json, subset=subset, model=model))


@evaluate_app.command("compare")
def evaluate_compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders the other evaluations wrote with --out.", show_default=False)],
    out: ReportOption = None,
    pictures: Annotated[int, typer.Option(min=0, help="Worst and best photos shown, each.")] = 4,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Several runs in one table and one page with pictures."""
    with reported(debug):
        from focus_backend.commands import evaluate

        raise typer.Exit(evaluate.compare(runs, out, as_json, pictures=pictures))


@evaluate_app.command("submission")
def evaluate_submission(
    dataset: DatasetArgument,
    results: ResultsArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files.", show_default=False)],
    subset: SubsetOption = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """The files that the NoW challenge wants."""
    with reported(debug):
        from focus_backend.commands import evaluate

        raise typer.Exit(evaluate.submission(dataset, results, out, as_json, subset=subset))


@evaluate_app.command("sweep")
def evaluate_sweep(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the runs; the same command goes on.", show_default=False)],
    config: Annotated[str, typer.Option("--config", "-c", help="A TOML file, or a name from `train configs`.")] = "focus",
    overrides: SetOption = None,
    factor: Annotated[list[float] | None, typer.Option(help="Multiple of the configured weight; several.", show_default=False)] = None,
    weight: Annotated[list[str] | None, typer.Option(help="Which of eta1 to eta5; all by default.", show_default=False)] = None,
    subset: SubsetOption = None,
    jobs: JobsOption = 1,
    device: Annotated[str, typer.Option(help="Of the reconstruction: auto, cpu, cuda.")] = "auto",
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Train with each weight of S's losses changed by itself, and evaluate."""
    with reported(debug):
        from focus_backend.commands import evaluate

        code = evaluate.sweep(
            config,
            out,
            dataset,
            factors=factor or (),
            weights=weight or (),
            settings=overrides or (),
            subset=subset,
            jobs=jobs,
            device=device,
            as_json=as_json,
        )
        raise typer.Exit(code)


@evaluate_app.command("fairness")
def evaluate_fairness(
    weights: Annotated[str, typer.Argument(help="A name from `weights list`, or a folder.")] = "default",
    people: Annotated[int, typer.Option(min=1, help="How many are drawn.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the people; not one that was trained with.")] = 5_555_555,
    out: ReportOption = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """The networks' errors on synthetic people, by skin tone and by sex."""
    with reported(debug):
        from focus_backend.commands import evaluate

        raise typer.Exit(evaluate.fairness(weights, people, seed, out, as_json))
