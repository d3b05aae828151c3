"""Photos to mesh files in bulk: `python scripts/export_meshes.py PHOTOS... --out DIR`.

Inside Blender: `blender -b -P scripts/export_meshes.py -- PHOTOS... --out DIR`.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

# Blender starts the script without its folder; the extension's sources are the repository's.
for _folder in (Path(__file__).resolve().parents[1], Path(__file__).resolve().parent):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from mesh_export.arguments import Arguments, read_arguments  # noqa: E402
from mesh_export.outcome import failure_of  # noqa: E402
from mesh_export.output_folder import make_folder  # noqa: E402
from mesh_export.photos import find_photos  # noqa: E402
from mesh_export.report import Report  # noqa: E402
from mesh_export.worker_process import BatchStoppedError  # noqa: E402


def run(arguments: Arguments, *, inside: bool) -> int:
    """Works through all photos, reports each, and gives the exit code."""
    since = time.monotonic()
    photos = find_photos(arguments.photos, arguments.recursive, arguments.out)
    report = Report(len(photos), arguments.out, arguments.debug)
    try:
        make_folder(arguments.out)
        if inside:
            from mesh_export.inside_blender import run_inside

            run_inside(arguments, photos, report)
        else:
            from mesh_export.outside_blender import run_outside

            run_outside(arguments, photos, report)
    except KeyboardInterrupt:
        report.interrupted = True
    except BatchStoppedError as stopped:
        report.stopped = stopped.failure
    except Exception as error:
        report.stopped = failure_of(error, traceback.format_exc())
    report.finish(time.monotonic() - since)
    return report.exit_code


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Once: what is being tidied up then should be tidied up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line, of Blender what follows "--", and returns the exit code."""
    # Only where Blender runs the script is its module there before anybody asks for it.
    inside = "bpy" in sys.modules
    given = sys.argv[1:] if argv is None else list(argv)
    if inside and argv is None:
        given = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    arguments = read_arguments(given)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    return run(arguments, inside=inside)


if __name__ == "__main__":
    sys.exit(main())
