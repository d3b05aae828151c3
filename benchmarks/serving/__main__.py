"""The server under load and under attack: `python -m benchmarks.serving load|overhead|memory|cancel|soak|faults [options]`.

Each starts a `focus-backend serve` process of its own, files and keys in a temporary folder, and ends it; `--server` takes one that runs.

* load: 1, 8 and 64 clients, each sending its next photo as soon as the last is answered, beside the library without a server.
* overhead: the same photo through the library in this process and through a server with one worker, alternating.
* memory: resident size and handles over many requests, with the slope of the second half.
* cancel: how soon a worker is free when its request is given up in the middle. Exit status 1 beyond 200 ms.
* soak: random clients, photos, cancels and kills; every request has to end, once. Exit status 1 where something was wrong.
* faults: one after another, and what the faulty side and a well-behaved client saw. Exit status 1 where something was wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.reconstruction import describe
from benchmarks.serving.process import ROOT, ServerOptions
from benchmarks.serving.quick import GOOD_PHOTO, QUICK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--server", default="", help="a running one instead: auto, a ready file or a key file")
    shared.add_argument("--workers", type=int, help="of the server that is started (and of the one given, for ratios)")
    shared.add_argument("--method", default="", help="auto, fit, network or refine")
    shared.add_argument("--weights", default="", metavar="DIR", help="of the networks")
    shared.add_argument("--photo", type=Path, default=ROOT / "docs" / "demo" / "astronaut.jpg")
    shared.add_argument("--quick", action="store_true", help="a pipeline that takes no time instead of the real one")
    shared.add_argument("--keep", type=Path, metavar="DIR", help="keep the server's log and files there")
    commands = parser.add_subparsers(dest="command", required=True)
    load = commands.add_parser("load", parents=[shared], help="requests a second, latencies, none lost")
    load.add_argument("--clients", default="1,8,64", help="with commas between")
    load.add_argument("--seconds", type=float, default=60.0, help="of each number of clients")
    load.add_argument("--parts", default="geometry,texture,masks", help="with commas between")
    load.add_argument("--no-baseline", action="store_true", help="do not measure the library without a server")
    overhead = commands.add_parser("overhead", parents=[shared], help="over calling the library")
    overhead.add_argument("--pairs", type=int, default=30)
    memory = commands.add_parser("memory", parents=[shared], help="over many requests")
    memory.add_argument("--requests", type=int, default=2000)
    memory.add_argument("--every", type=int, default=100, help="requests between samples")
    cancel = commands.add_parser("cancel", parents=[shared], help="in the middle of the work")
    cancel.add_argument("--times", type=int, default=40)
    cancel.add_argument("--seed", type=int, default=0)
    soak = commands.add_parser("soak", parents=[shared], help="random work and harm for a long time")
    soak.add_argument("--minutes", type=float, default=30.0)
    soak.add_argument("--quiet", type=float, default=60.0, help="seconds of rest before memory is measured at the end")
    soak.add_argument("--seed", type=int, default=0)
    soak.add_argument("--synchronous", type=int, default=4, help="clients at a time")
    soak.add_argument("--asynchronous", type=int, default=6, help="clients at a time")
    soak.add_argument("--fault-seconds", type=float, default=10.0, help="between two faults, on average")
    faults = commands.add_parser("faults", parents=[shared], help="one after another, with a client that works all the while")
    faults.add_argument("--seed", type=int, default=0)
    faults.add_argument("--only", default="", help="those whose name contains this")
    return parser


def _server_options(options: argparse.Namespace) -> ServerOptions:
    workers = options.workers or (1 if options.command in ("overhead", "cancel") else 2)
    # It goes on to processes whose working folder may be another.
    weights = str(Path(options.weights).resolve()) if options.weights and Path(options.weights).exists() else options.weights
    return ServerOptions(options.server, workers, options.method, weights, QUICK if options.quick else "")


def _photo(options: argparse.Namespace) -> bytes:
    """Of the file; the quick pipeline wants orders instead."""
    return GOOD_PHOTO if options.quick else options.photo.read_bytes()


def _run(options: argparse.Namespace, folder: Path) -> bool:
    """Whether nothing was wrong."""
    server = _server_options(options)
    if options.command == "load":
        from benchmarks.serving.load import run_load

        parts = tuple(part for part in options.parts.split(",") if part)
        clients = [int(count) for count in options.clients.split(",")]
        has_baseline = not (options.no_baseline or options.quick)
        return run_load(server, _photo(options), clients, options.seconds, parts, folder, with_baseline=has_baseline)
    if options.command == "overhead":
        from benchmarks.serving.overhead import run_overhead

        run_overhead(server, _photo(options), options.pairs, folder)
    elif options.command == "memory":
        from benchmarks.serving.memory import run_memory

        run_memory(server, _photo(options), options.requests, options.every, folder)
    elif options.command == "cancel":
        from benchmarks.serving.cancel import run_cancel

        return run_cancel(server, _photo(options), options.times, options.seed, folder)
    elif options.command == "soak":
        from benchmarks.serving.soak import SoakOptions, run_soak

        counts = options.synchronous, options.asynchronous
        soak = SoakOptions(60 * options.minutes, options.quiet, *counts, options.seed, options.fault_seconds)
        return run_soak(server, soak, options.photo, folder)
    else:
        from benchmarks.serving.faults import run_faults

        return run_faults(server, options.photo, options.seed, options.only, folder)
    return True


def main() -> None:
    """Print what was measured; exit status 1 where something was wrong."""
    parser = _parser()
    options = parser.parse_args()
    if options.command == "faults" and options.server:
        parser.error("faults needs a server of its own, to have it killed and its keys revoked")
    print(describe())
    print(f"options: {' '.join(sys.argv[1:])}", flush=True)
    if options.keep:
        options.keep.mkdir(parents=True)
        is_well = _run(options, options.keep.resolve())
    else:
        # Not all that a fault leaves can be removed at once.
        with tempfile.TemporaryDirectory(prefix="focus-bench-", ignore_cleanup_errors=True) as folder:
            is_well = _run(options, Path(folder))
    sys.exit(0 if is_well else 1)


if __name__ == "__main__":
    main()
