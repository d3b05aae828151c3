"""`focus-backend serve`: the configuration from a file and flags, and the server from the configuration. No torch here."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from focus_backend.errors import ConfigError
from focus_backend.serving.config import ServerConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_EXAMPLE = "write for instance --set limits.queue=32"


def read_config(
    path: Path | None, overrides: Sequence[str] = (), server: Mapping[str, Any] | None = None, pipeline: Mapping[str, Any] | None = None
) -> ServerConfig:
    """The configuration of a file, with `section.key=value` over it, and flags over both.

    Args:
        path: a TOML file; None for the defaults.
        overrides: `key=value` or `section.key=value`; the value is TOML, or a bare word.
        server: values of `ServerConfig`; None leaves one as it is.
        pipeline: values of its section "pipeline"; None leaves one as it is.

    Raises:
        ConfigError: no such file, no TOML, an unknown key or a value that cannot be used; the line names it.
    """
    values = {} if path is None else _read(path)
    for override in overrides:
        _override(values, override)
    values |= {name: value for name, value in (server or {}).items() if value is not None}
    section = values.setdefault("pipeline", {})
    if isinstance(section, dict):
        section |= {name: value for name, value in (pipeline or {}).items() if value is not None}
    try:
        return ServerConfig(**values)
    except ValidationError as error:
        raise _explained(error, path) from None


def run_server(config: ServerConfig) -> int:
    """Serve until the server is stopped; its ready file's path is printed once it listens. The exit code.

    Raises:
        FocusError: it cannot listen or write its files, or its workers cannot load what they need.
    """
    from focus_backend.serving.server import serve

    def announce(ready_file: Path) -> None:
        print(ready_file, flush=True)

    return serve(config, announce=announce)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is no TOML: {str(error).splitlines()[0]}", "correct the file") from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"configuration {path} cannot be read ({reason})", "give a TOML file") from None


def _override(values: dict[str, Any], override: str) -> None:
    """Sets one value; the last of equal names counts."""
    path, sign, text = override.partition("=")
    names = path.strip().split(".")
    if not sign or not all(names):
        raise ConfigError(f"--set {override} is not section.key=value", _EXAMPLE)
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for name in names[:-1]:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: {name} is not a section", _EXAMPLE)
    values[names[-1]] = value


def _explained(error: ValidationError, path: Path | None) -> ConfigError:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the configuration"
    # Flags and --set lie over the file: which of them it was, the name tells.
    where = f" ({path})" if path is not None else ""
    if first["type"] == "extra_forbidden":
        return ConfigError(f"there is no setting {place}{where}", "correct its name, or leave it out")
    if first["type"] == "model_type":
        return ConfigError(f"{place}{where} is a section, not {first['input']!r}", _EXAMPLE)
    reason = first["msg"].removeprefix("Value error, ")
    problem = f"{place}{where} cannot be {first['input']!r}: {reason[0].lower()}{reason[1:]}"
    return ConfigError(problem, "correct it, or leave it out for the default")
