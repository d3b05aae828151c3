"""`focus-backend serve`, `status`, `stop` and `keys`. Options only, as in `cli`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from focus_backend.cli_options import DebugFlag, JsonFlag, KeyOption, SetOption, reported

keys_app = typer.Typer(help="Keys of clients on other machines: who may use the server.", no_args_is_help=True)

ServerArgument = Annotated[str, typer.Argument(help="auto, a ready file, a key file or tcp://HOST:PORT.")]
KeysOption = Annotated[Path | None, typer.Option("--keys", help="Folder of the keys, instead of the user's own.", show_default=False)]


class LogForm(Enum):
    """How the server's log is written."""

    TEXT = "text"
    JSON = "json"


def add_server_commands(app: typer.Typer) -> None:
    """Adds the commands that are not in a group."""
    app.command("serve")(serve)
    app.command("status")(status)
    app.command("stop")(stop)


def serve(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="A TOML file; flags win over it.", show_default=False)] = None,
    overrides: SetOption = None,
    bind: Annotated[
        list[str] | None,
        typer.Option(
            help="Where to listen, again for each address: tcp://HOST:PORT, port 0 for a free one. Other machines need keys.",
            show_default="tcp://127.0.0.1:0",
        ),
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Where address and secret are written for clients of this user.", show_default=False)
    ] = None,
    parent_pid: Annotated[int | None, typer.Option(min=1, help="End when this process does.", show_default=False)] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Worker processes; 0 lets the program choose.", show_default=False)] = None,
    batch: Annotated[int | None, typer.Option(min=0, help="Requests that go through the networks at once.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="Face model: a name from `models list`, or a file.", show_default="anny")] = None,
    landmarks: Annotated[str | None, typer.Option(help="Landmark detector.", show_default="mediapipe")] = None,
    method: Annotated[
        str | None, typer.Option(help="Of requests that name none: auto, fit, network or refine.", show_default="auto")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Networks' weights: a name or a folder.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="Of the networks: auto, cpu, cuda, cuda:1, ...", show_default="auto")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads of a worker.", show_default="1")] = None,
    keys: KeysOption = None,
    grace: Annotated[float | None, typer.Option(min=0, help="Seconds that running work may go on at the end.", show_default="10")] = None,
    log: Annotated[LogForm | None, typer.Option(help="One line an event, to stderr.", show_default="text")] = None,
    debug: DebugFlag = False,
) -> None:
    """Keep everything loaded and reconstruct photos for clients, until it is stopped.

    Prints the path of its ready file when it listens. Ends with SIGTERM, Ctrl-C or `focus-backend stop`.
    """
    with reported(debug):
        from focus_backend.commands.serve import read_config, run_server

        server = {
            "bind": bind,
            "ready_file": ready_file,
            "parent_pid": parent_pid,
            "workers": workers,
            "batch": batch,
            "keys": keys,
            "grace_seconds": grace,
            "log": None if log is None else log.value,
        }
        pipeline = {
            "model": model,
            "landmarks": landmarks,
            "method": method,
            "weights": weights,
            "device": device,
            "threads": threads,
        }
        raise typer.Exit(run_server(read_config(config, overrides or [], server, pipeline)))


def status(
    server: ServerArgument = "auto",
    key: KeyOption = None,
    as_json: JsonFlag = False,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="Prometheus text, for a scraper.")] = False,
    debug: DebugFlag = False,
) -> None:
    """How a server is: queue, throughput, latency, memory."""
    with reported(debug):
        from focus_backend.commands.server_status import show_status

        show_status(server, key, as_json, prometheus)


def stop(
    server: ServerArgument = "auto",
    grace: Annotated[float | None, typer.Option(min=0, help="Seconds that running work may go on.", show_default=False)] = None,
    debug: DebugFlag = False,
) -> None:
    """End a server of yours: no new work, running work finished or cancelled."""
    with reported(debug):
        from focus_backend.commands.server_status import stop_server

        stop_server(server, grace)


@keys_app.command("new")
def keys_new(
    name: Annotated[str, typer.Argument(help="Of the client: letters, digits and any of -_.", show_default=False)],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The client's key file.", show_default="NAME.key")] = None,
    address: Annotated[str, typer.Option(help="Where the client reaches the server: tcp://HOST:PORT.", show_default=False)] = "",
    keys: KeysOption = None,
    debug: DebugFlag = False,
) -> None:
    """Let a client in: make the key file that it needs. Whoever has the file may use the server."""
    with reported(debug):
        from focus_backend.commands.keys import new_key

        new_key(name, output, address, keys)


@keys_app.command("list")
def keys_list(keys: KeysOption = None, as_json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """Whose keys there are."""
    with reported(debug):
        from focus_backend.commands.keys import list_keys

        list_keys(keys, as_json)


@keys_app.command("revoke")
def keys_revoke(
    name: Annotated[str, typer.Argument(help="A name from `keys list`.", show_default=False)],
    keys: KeysOption = None,
    debug: DebugFlag = False,
) -> None:
    """Let a client in no more, those connected at this moment included."""
    with reported(debug):
        from focus_backend.commands.keys import revoke_key

        revoke_key(name, keys)
