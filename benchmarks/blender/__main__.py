"""The extension in a real Blender: `python -m benchmarks.blender latency|memory|faults --blender blender [options]`.

* latency: seconds from the click on the button until the head is in the scene, with a backend that has to be started first and with one
  that runs; and the longest time that Blender's main thread was away meanwhile, beside that of doing nothing and of drawing the viewport.
* memory: resident size and datablocks of Blender over many reconstructions, each undone.
* faults: what the user sees when something goes wrong, and whether the next photo works; exit status 1 where it is not as documented.

Needed: Xvfb, xdotool, ImageMagick's import, a backend; Linux. Faults of disks need root.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from benchmarks.reconstruction import describe
from scripts.window_test.blender_window import build_extension
from scripts.window_test.screen import WindowTestError

ROOT = Path(__file__).resolve().parents[2]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--blender", default="blender", help="command that starts Blender 4.2 or later")
    shared.add_argument("--backend", type=Path, help="focus-backend; found by the extension itself when left out")
    shared.add_argument("--extension", type=Path, help="zip; built when left out")
    shared.add_argument("--photo", type=Path, default=ROOT / "docs" / "demo" / "astronaut.jpg", help="with one face")
    commands = parser.add_subparsers(dest="command", required=True)
    latency = commands.add_parser("latency", parents=[shared], help="click to head, and blocks of the window")
    latency.add_argument("--cold", type=int, default=3, help="Blenders that are opened, each starting a backend")
    latency.add_argument("--warm", type=int, default=5, help="further clicks in the last of them")
    memory = commands.add_parser("memory", parents=[shared], help="over many reconstructions and undos")
    memory.add_argument("--times", type=int, default=50)
    memory.add_argument("--every", type=int, default=10, help="reconstructions between samples")
    memory.add_argument("--method", default="", help="auto, fit, network or refine")
    faults = commands.add_parser("faults", parents=[shared], help="what the user sees when something goes wrong")
    faults.add_argument("--only", nargs="+", default=[], metavar="NAME", help="cases whose name contains one of these")
    faults.add_argument("--markdown", type=Path, help="file for the table")
    return parser


def _run(options: argparse.Namespace, folder: Path) -> bool:
    """Whether all was well."""
    from benchmarks.blender.faults import installed_backend, run_faults
    from benchmarks.blender.faults_stage import Stage
    from benchmarks.blender.latency import run_latency
    from benchmarks.blender.memory import run_memory
    from benchmarks.blender.trial import TrialOptions

    extension = options.extension or build_extension(folder)
    backend = options.backend.resolve() if options.backend else None
    if options.command == "faults":
        stage = Stage(shlex.split(options.blender), extension.resolve(), backend or installed_backend(), options.photo.resolve(), folder)
        return run_faults(stage, options.only, options.markdown)
    trial = TrialOptions(options.blender, extension.resolve(), backend, options.photo.resolve())
    if options.command == "latency":
        run_latency(trial, options.cold, options.warm)
    else:
        run_memory(trial, options.times, options.every, options.method)
    return True


def main() -> int:
    """Print what was measured; exit status 1 where something was wrong."""
    options = _parser().parse_args()
    print(describe())
    print(f"options: {' '.join(sys.argv[1:])}", flush=True)
    with tempfile.TemporaryDirectory(prefix="focus-bench-") as folder:
        try:
            return 0 if _run(options, Path(folder)) else 1
        except WindowTestError as error:
            print(f"benchmarks.blender: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
