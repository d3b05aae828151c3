"""What was claimed and whether it held."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Checks:
    """Prints each claim as it is checked and keeps what was measured.

    Attributes:
        failures: claims that did not hold.
        measured: name to value, for the report.
    """

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.held: list[str] = []
        self.measured: dict[str, Any] = {}

    def expect(self, holds: object, claim: str, seen: object = "") -> None:
        """Notes whether a claim holds; what was seen instead is told where it does not."""
        if holds:
            self.held.append(claim)
            print(f"  ok     {claim}", flush=True)
            return
        told = f"{claim}; seen: {seen}" if seen != "" else claim
        self.failures.append(told)
        print(f"  WRONG  {told}", flush=True)

    def measure(self, name: str, value: Any, unit: str = "") -> None:
        """Notes a value."""
        self.measured[name] = value
        shown = f"{value:.3f}" if isinstance(value, float) else value
        print(f"         {name}: {shown} {unit}".rstrip(), flush=True)

    def write(self, path: Path) -> None:
        """As JSON."""
        content = {"held": self.held, "failures": self.failures, "measured": self.measured}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
