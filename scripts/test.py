"""Sets up `.venv` and checks everything: lint, format, types, tests. Arguments go to pytest: python scripts/test.py [-k NAME ...]

The add-on's tests also run in older Blenders, each in an environment of its own (`.venv-bpy-4.2`), where those can be installed.
"""

from __future__ import annotations

import os
import sys

from environment import BLENDERS, prepare, prepare_blender, run

_CHECKS = (
    ("Lint", ("-m", "ruff", "check", ".")),
    ("Format", ("-m", "ruff", "format", "--check", ".")),
    ("Types", ("-m", "mypy")),
)


# Three processes for two cores, for one of them waits for Blenders; a file's tests share what they prepare. In order: long files first.
_IN_PARALLEL = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")


def main() -> int:
    """Runs the checks and returns 0 when all of them pass."""
    python = prepare(("dev", "blender", "insightface", "models", "recognition", "train", "evaluate"))
    for version in BLENDERS:
        prepare_blender(version)
    failed = []
    # With arguments somebody looks for one test; the rest can wait.
    for name, command in () if sys.argv[1:] else _CHECKS:
        print(f"== {name}", flush=True)
        if run(python, *command) != 0:
            failed.append(name)
    print("== Tests", flush=True)
    # Threads of three processes on two cores would mostly wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if run(python, "-m", "pytest", *_IN_PARALLEL, *sys.argv[1:]) != 0:
        failed.append("Tests")
    print(f"Failed: {', '.join(failed)}" if failed else "All checks passed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
