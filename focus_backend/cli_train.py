"""`focus-backend train` and `focus-backend weights`. Options only, as in `cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from focus_backend.cli_options import DebugFlag, JsonFlag, SetOption, reported

train_app = typer.Typer(help="Train the networks, stage by stage or all at once.", no_args_is_help=True)
weights_app = typer.Typer(help="Weights of the networks: which there are, what is in them, conversion.", no_args_is_help=True)

ConfigOption = Annotated[
    list[str] | None, typer.Option("--config", "-c", help="A TOML file, or a name from `train configs`; later ones lie over earlier.")
]
RunOption = Annotated[
    Path, typer.Option("--out", "-o", help="The run's folder; the same command goes on with a stopped run.", show_default=False)
]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu or cuda.", show_default=False)]
DevicesOption = Annotated[int | None, typer.Option(min=1, help="How many, on this machine.", show_default=False)]
PrecisionOption = Annotated[str | None, typer.Option(help="32-true or bf16-mixed.", show_default=False)]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Processor threads of one process.", show_default=False)]
PartOption = Annotated[Path | None, typer.Option(help="Weights folder to take it from instead; none leaves it out.", show_default=False)]


def _add_stage(name: str, stages: tuple[str, ...] | None, description: str) -> None:
    """One command a stage: they differ in nothing but their name."""

    @train_app.command(name, help=description)
    def run(
        out: RunOption,
        config: ConfigOption = None,
        overrides: SetOption = None,
        device: DeviceOption = None,
        devices: DevicesOption = None,
        precision: PrecisionOption = None,
        threads: ThreadsOption = None,
        as_json: JsonFlag = False,
        debug: DebugFlag = False,
    ) -> None:
        with reported(debug):
            from focus_backend.commands.train import TrainOptions, train_stages

            options = TrainOptions(config or ["focus"], out, overrides or [], device, devices, precision, threads, as_json)
            raise typer.Exit(train_stages(options, stages))


_add_stage("warmstart", ("warmstart",), "Stage 0, optional: theta learnt from synthetic faces where it is known.")
_add_stage("init", ("init",), "Step 1: the encoder, without labels.")
_add_stage("segmentation", ("segmentation",), "Step 2: the segmentation network, from the encoder's first masks.")
_add_stage("em", ("em",), "Step 3: both in turn.")
_add_stage("misfit", ("misfit",), "The misfit prior.")
_add_stage("all", None, "Every stage that has steps, one after the other.")


@train_app.command("recognition")
def train_recognition(
    out: Annotated[Path, typer.Option("--out", "-o", help="The network's file.", show_default=False)],
    config: ConfigOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """A recognition network of our own, on people that do not exist."""
    with reported(debug):
        from focus_backend.commands.train import train_recognition as run

        raise typer.Exit(run(config or ["focus"], out, overrides or [], device or "auto", as_json))


@train_app.command("configs")
def train_configs(as_json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """Names of the configurations that come with the package."""
    with reported(debug):
        from focus_backend.commands.train import list_configs

        list_configs(as_json)


@train_app.command("show")
def train_show(config: ConfigOption = None, overrides: SetOption = None, debug: DebugFlag = False) -> None:
    """A configuration in full, with everything it inherits."""
    with reported(debug):
        from focus_backend.commands.train import show_config

        show_config(config or ["focus"], overrides or [])


@train_app.command("prepare")
def train_prepare(
    source: Annotated[Path, typer.Argument(help="Folder of the photos or the data set.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the crops; the same command goes on.", show_default=False)],
    kind: Annotated[str, typer.Option(help="folder, celebamask or ar.")] = "folder",
    model: Annotated[str, typer.Option(help="Face model: a name from `models list`, or a file.")] = "anny",
    landmarks: Annotated[str, typer.Option(help="Landmark detector.")] = "mediapipe",
    size: Annotated[int, typer.Option(min=16, help="Pixels a side of the crops: the image_size of the training.")] = 224,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    resume: Annotated[bool, typer.Option("--resume/--restart", help="Go on with what is in the folder, or start over.")] = True,
    all_faces: Annotated[bool, typer.Option("--all-faces", help="Every face of a photo, not only its largest.")] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Cut aligned crops out of photos and find their landmarks, once, for training and evaluation."""
    with reported(debug):
        from focus_backend.commands.prepare import prepare_command

        code = prepare_command(kind, source, out, model, landmarks, workers, as_json, size=size, resume=resume, all_faces=all_faces)
        raise typer.Exit(code)


@weights_app.command("list")
def weights_list(as_json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """Names of the weights that come with the package."""
    with reported(debug):
        from focus_backend.commands.weights import list_weights_command

        list_weights_command(as_json)


@weights_app.command("info")
def weights_info(
    weights: Annotated[str, typer.Argument(help="A name from `weights list`, a folder or a network's file.", show_default=False)],
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """What weights are: networks, face model, how they were trained, hashes."""
    with reported(debug):
        from focus_backend.commands.weights import show_weights

        show_weights(weights, as_json)


@weights_app.command("export")
def weights_export(
    source: Annotated[Path, typer.Argument(help="Weights folder of a run's stage; its encoder is taken.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; its last part names the weights.", show_default=False)],
    segmentation: PartOption = None,
    misfit: PartOption = None,
    recognition: PartOption = None,
    method: Annotated[str | None, typer.Option(help="What --method auto is with them: network, refine, fit.", show_default=False)] = None,
    half: Annotated[bool, typer.Option("--half/--single", help="Store matrices and kernels in 16 bits, or in 32.")] = True,
    debug: DebugFlag = False,
) -> None:
    """Write weights to give away: parts of one stage or several, hashes, and the run's configuration as a note."""
    with reported(debug):
        from focus_backend.commands.weights_export import export_command

        given = {"segmentation": segmentation, "misfit": misfit, "recognition": recognition}
        parts = {kind: None if path == Path("none") else path for kind, path in given.items() if path is not None}
        export_command(source, out, parts, method, "half" if half else "single")


@weights_app.command("convert")
def weights_convert(
    source: Annotated[Path, typer.Argument(help="An ArcFace network: .onnx or .pth.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)],
    debug: DebugFlag = False,
) -> None:
    """Make a recognition network for the perceptual losses out of an ArcFace file you have."""
    with reported(debug):
        from focus_backend.commands.weights import convert_recognition

        convert_recognition(source, output)
