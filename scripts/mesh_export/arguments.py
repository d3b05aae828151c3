"""The command line; argparse, for Blender's Python has nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FORMATS = ("glb", "fbx", "obj", "usd", "blend")
METHODS = ("auto", "fit", "network", "refine")
# Options of a reconstructor that is loaded here: a server has loaded its own.
LOCAL_OPTIONS = ("model", "landmarks", "weights", "device")
_SERVER_JOBS = 4

DESCRIPTION = """Turns photos into mesh files with shape keys and textures: one file a face and format.

  python scripts/export_meshes.py PHOTOS... --out DIR --format glb,fbx,obj,usd,blend
  blender -b -P scripts/export_meshes.py -- PHOTOS... --out DIR

The first needs focus-backend and the bpy package, the second the FOCUS extension in that Blender.
Exit code 0: all fine. 2: bad input, the rest was done. 1: our fault. 130: interrupted."""


@dataclass(frozen=True)
class Arguments:
    """What the user asked for.

    Attributes:
        photos: photos, folders of photos, or patterns.
        out: folder for the files.
        formats: of `FORMATS`, each once.
        method: of `METHODS`.
        misfit: take off the misfit prior, where the weights have one.
        faces: how many of a photo, largest first; None for all.
        texture_size: textures are no larger, pixels a side; None leaves them as they are.
        texture: the skin's colour: "photo" or "albedo".
        unit_scale: file units a metre.
        expression: heads show the photo's expression; otherwise they are neutral, and the key waits at 0.
        identity: identity sliders are shape keys.
        camera: the camera that matches the photo, where the format knows cameras.
        recursive: look into folders' folders, too.
        skip_existing: leave photos alone whose files are there.
        overwrite: also replace files that no run of this script has written.
        server: "auto", a ready file, a key file or an address; None to reconstruct here.
        key: key file for a server elsewhere.
        jobs: photos worked on at once.
        local: options of the reconstructor that were given, of `LOCAL_OPTIONS`.
        debug: show the traceback of a failure.
    """

    photos: tuple[str, ...]
    out: Path
    formats: tuple[str, ...] = ("glb",)
    method: str = "auto"
    misfit: bool = True
    faces: int | None = None
    texture_size: int | None = None
    texture: str = "photo"
    unit_scale: float = 1.0
    expression: bool = True
    identity: bool = True
    camera: bool = False
    recursive: bool = False
    skip_existing: bool = False
    overwrite: bool = False
    server: str | None = None
    key: Path | None = None
    jobs: int = 1
    local: tuple[tuple[str, str], ...] = ()
    debug: bool = False

    def settings(self) -> dict[str, object]:
        """What a photo's files depend on; files made with others are made anew."""
        names = ("method", "misfit", "faces", "texture_size", "texture", "unit_scale", "expression", "identity", "camera", "local")
        return {name: getattr(self, name) if name != "local" else dict(self.local) for name in names}


def read_arguments(argv: Sequence[str]) -> Arguments:
    """The arguments; argparse ends the program with code 2 where they are wrong, and with 0 after --help."""
    parser = _parser()
    given = parser.parse_args(argv)
    local = tuple((name, value) for name in LOCAL_OPTIONS if (value := getattr(given, name)) is not None)
    if given.server is None and given.key is not None:
        parser.error("--key goes with --server")
    if given.server is not None and local:
        parser.error(f"--{local[0][0]} is the server's to choose: leave it out, or --server")
    names = {name: value for name, value in vars(given).items() if name not in LOCAL_OPTIONS}
    names["jobs"] = given.jobs or (1 if given.server is None else _SERVER_JOBS)
    return Arguments(**{**names, "photos": tuple(given.photos), "local": local})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("export_meshes.py", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("photos", nargs="+", metavar="PHOTOS", help="photos, folders of photos, or patterns")
    add("--out", "-o", type=Path, required=True, metavar="DIR", help="folder for the files")
    add("--format", dest="formats", type=_formats, default=("glb",), metavar="LIST", help=f"of {','.join(FORMATS)}; glb without it")
    add("--method", choices=METHODS, default="auto", help="how faces are reconstructed")
    add("--misfit", action=argparse.BooleanOptionalAction, default=True, help="take off the misfit prior, if the weights have one")
    add("--faces", type=_faces, default=None, metavar="N", help="faces of a photo, largest first: a number, or all (default)")
    add("--texture-size", type=_between(16, 8192), metavar="PIXELS", help="scale textures down to so many pixels a side")
    add("--texture", choices=("photo", "albedo"), default="photo", help="the skin's colour: the photo's without its light, or the model's")
    add("--unit-scale", type=_positive, default=1.0, metavar="UNITS", help="file units a metre; 1 is real size")
    add("--no-expression", dest="expression", action="store_false", help="neutral heads; the fitted expression's key waits at 0")
    add("--no-identity", dest="identity", action="store_false", help="no sliders of identity")
    add("--camera", action="store_true", help="the photo's camera, too")
    add("--recursive", "-r", action="store_true", help="look into folders' folders, too")
    add("--skip-existing", action="store_true", help="leave photos alone whose files are there")
    add("--overwrite", action="store_true", help="also replace files that this script has not written")
    add("--server", metavar="SERVER", help="have a server reconstruct: auto, its ready file, a key file or tcp://HOST:PORT")
    add("--key", type=Path, metavar="FILE", help="key file, for a server on another machine or of somebody else")
    add("--jobs", "-j", type=_between(1, 64), default=None, metavar="N", help="photos at once; 1 without it, 4 with a server")
    for name in LOCAL_OPTIONS:
        add(f"--{name}", help="as for `focus-backend reconstruct`; not with a server, nor inside Blender")
    add("--debug", action="store_true", help="show the traceback of a failure")
    return parser


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown) or text!r} is no format; use some of {','.join(FORMATS)}")
    return names


def _faces(text: str) -> int | None:
    if text.strip().lower() == "all":
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of faces; give a whole number from 1, or all")


def _between(least: int, most: int) -> object:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return number


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1e-6 <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no scale; give a number such as 1 or 100")
    return value
