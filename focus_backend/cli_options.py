"""What the groups of the command share: flags, and how a failure is told."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from focus_backend.errors import FocusError

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, for programs.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One value of the configuration: section.key=value.")]
KeyOption = Annotated[
    Path | None, typer.Option("--key", help="Key file, for a server on another machine or of somebody else.", show_default=False)
]


def given_options(context: typer.Context) -> frozenset[str]:
    """Names of the options and arguments that the user typed, defaults left out."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE")


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """A failure as one line on stderr and its exit code, with the traceback only on request."""
    try:
        yield
    except (typer.Exit, KeyboardInterrupt):
        raise
    except BrokenPipeError:
        # The reader has left, as `| head` does; writing at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except Exception as error:
        from focus_backend.commands.report import error_line

        if debug:
            traceback.print_exc()
        print(f"error: {error_line(error)}", file=sys.stderr)
        raise typer.Exit(error.exit_code if isinstance(error, FocusError) else 1) from None
