"""`python -m focus_backend` is `focus-backend`."""

from __future__ import annotations

from focus_backend.cli import main

if __name__ == "__main__":
    main()
