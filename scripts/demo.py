"""Sets up `.venv` and turns the demo photo, or the photos named, into faces: python scripts/demo.py [PHOTO ...]"""

from __future__ import annotations

import sys
from pathlib import Path

from environment import ROOT, prepare, run

OUTPUT = ROOT / "demo-output"


def main() -> int:
    """Runs the demo and returns the exit status."""
    photos = [Path(name).resolve() for name in sys.argv[1:]] or [ROOT / "docs" / "demo" / "astronaut.jpg"]
    status = run(prepare(), "-m", "focus_backend", "reconstruct", *map(str, photos), "-o", str(OUTPUT))
    reports = sorted(OUTPUT.glob("*/report.jpg"))
    if status == 0 and reports:
        print("\nPictures (photo, reconstruction, overlay, mask):")
        for report in reports:
            print(f"  {report}")
        print(f"Mesh, textures and masks lie beside them in {OUTPUT}")
        print(f"\nFor Blender, give {ROOT} as the backend in the extension's preferences (docs/blender.md).")
    return status


if __name__ == "__main__":
    sys.exit(main())
