"""Builds the Blender extension: a zip for every platform, and the index that makes their folder an extension repository.

python scripts/build_extension.py --out dist/extension
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from extension.build import build
from extension.errors import BuildError
from extension.wheels import platform_here


def main() -> int:
    """Reads the command line and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the zips and the index")
    parser.add_argument(
        "--platform", action="append", default=[], help="such as linux-x64, or here for this machine; may be given again; all without it"
    )
    parser.add_argument("--repository-url", default="", help="where the folder will be found; links are relative without it")
    parser.add_argument("--wheels", type=Path, help="folder that has the pinned wheels; nothing is downloaded then")
    arguments = parser.parse_args()
    platforms = [platform_here() if name == "here" else name for name in arguments.platform]
    try:
        archives = build(arguments.out, platforms, arguments.repository_url, arguments.wheels)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    for archive in archives:
        print(archive)
    return 0


if __name__ == "__main__":
    sys.exit(main())
