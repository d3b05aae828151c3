"""The checker of signatures that pytest puts on the package (option --jaxtyping-packages in pyproject.toml)."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

# An int where a float is asked for is right, as Python's typing has it.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
