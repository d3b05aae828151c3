"""Faults of the backend and of the way to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.blender.faults_stage import ALL_PREFERENCES, Case, Seen, Stage, end_of, expect_failure, next_photo, script, words
from benchmarks.blender.played_blender import PlayedBlender, SkippedError
from focus_backend.serving.ready import ReadyFile, new_secret, write_ready
from scripts.window_test.processes import PROC, is_running
from scripts.window_test.screen import WindowTestError

# Of the block kept for documentation: no such host. As the system writes it, the lowest byte first.
ELSEWHERE, ELSEWHERE_IN_HEXADECIMAL = "tcp://198.51.100.1:5555", "016433C6"
EXIT_CODE = 3
# Some key, of the form that keys have.
CURVE_KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


def kill_backend(stage: Stage) -> Seen:
    """The process is killed while it works."""
    blender = stage.ordinary
    begun = blender.begin_slow(stage.photo)
    (backend,) = blender.backends()
    os.kill(backend, signal.SIGKILL)
    told = end_of(blender, begun, time.monotonic(), "the backend ended while it worked on", "was ended by signal 9")
    return Seen(*told, next_photo(blender, stage.photo))


def kill_worker(stage: Stage) -> Seen:
    """One of its workers is killed: the server tries once more, and the user sees nothing of it."""
    blender = stage.ordinary
    begun = blender.begin_slow(stage.photo)
    (backend,) = blender.backends()
    workers = blender.workers()
    if not workers:
        raise WindowTestError("the backend has no workers")
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    killed = time.monotonic()
    answer = blender.answer_of(begun)
    took, look = time.monotonic() - killed, blender.look()
    if answer["result"] != "FINISHED" or look["panel"] is not None:
        raise WindowTestError(f"a killed worker was seen: {answer}, {look}")
    if not is_running(backend) or set(workers) & set(blender.workers()):
        raise WindowTestError("the worker was not replaced")
    return Seen("nothing but a longer wait; the head comes", took, next_photo(blender, stage.photo))


@contextlib.contextmanager
def _stranger(greeting: bytes) -> Iterator[int]:
    """The port of a program that lets in whoever comes, says this, and nothing more."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.sendall(greeting)
                    held.append(connection)

        held: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for connection in held:
                connection.close()


def port_taken(stage: Stage) -> Seen:
    """Another program holds the port that a ready file names, and speaks first; a backend of our own gets a free one."""
    return _at_port(stage, b"220 another program is here\r\n", "has another key than expected, or is no FOCUS backend")


def port_taken_silently(stage: Stage) -> Seen:
    """The same with one that only listens."""
    return _at_port(stage, b"", "no backend answers at")


def _at_port(stage: Stage, greeting: bytes, fragment: str) -> Seen:
    blender = stage.ordinary
    home = stage.new_folder("home")
    with _stranger(greeting) as port:
        ready = ReadyFile.of_this_process(f"tcp://127.0.0.1:{port}", CURVE_KEY, new_secret(), "FOCUS 0.1.0")
        made = home / ".cache" / "focus-backend" / "run"
        made.mkdir(parents=True, mode=0o700)
        write_ready(ready, made / f"{ready.pid}.json")
        kept = {name: os.environ.get(name) for name in ("HOME", "XDG_RUNTIME_DIR")}
        blender.ask("environment", values={"HOME": str(home), "XDG_RUNTIME_DIR": None})
        blender.ask("prefer", values={"backend_mode": "CONNECT"})
        try:
            told = expect_failure(blender, stage.photo, fragment)
        finally:
            blender.ask("environment", values=kept)
            blender.ask("prefer", values=ALL_PREFERENCES)
        well = next_photo(blender, stage.photo)
        address = blender.look()["address"]
    if not address or address.endswith(f":{port}"):
        raise WindowTestError(f"our backend listens at {address!r}, the other program at {port}")
    return Seen(*told, f"{well}, with a backend of its own on a free port")


def no_listener(stage: Stage) -> Seen:
    """An address at which no backend of this user listens."""
    blender = stage.ordinary
    blender.ask("prefer", values={"backend_mode": "CONNECT", "address": "tcp://127.0.0.1:9"})
    try:
        told = expect_failure(blender, stage.photo, "no backend of yours listens at")
    finally:
        blender.ask("prefer", values=ALL_PREFERENCES)
    return Seen(*told, next_photo(blender, stage.photo))


def other_version(stage: Stage) -> Seen:
    """A real backend whose protocol has another number."""
    first = stage.backend.read_bytes().splitlines()[0]
    if not first.startswith(b"#!/"):
        raise SkippedError(f"{stage.backend} is no script that names its Python")
    lines = ["import sys", "from focus_backend.serving import wire", "wire.PROTOCOL += 98", "from focus_backend.cli import main"]
    other = script(stage.new_folder("other") / "focus-backend", "\n".join([first.decode(), *lines, "sys.exit(main())", ""]))
    return _with_executable(stage, other, "of the protocol", "speaks version")


def no_backend(stage: Stage) -> Seen:
    """Nowhere on the machine; then the user says where it is."""
    blender_setting = stage.setting(before=[words("mount", "--bind", "/dev/null", stage.backend)])
    empty = stage.new_folder("empty")
    # Somewhere that nobody looks: what was covered is still there in another place.
    elsewhere = script(stage.new_folder("elsewhere") / "focus-backend", stage.backend.read_text())
    with stage.opened(blender_setting) as blender:
        blender.ask("environment", values={"HOME": str(empty), "PATH": str(empty), "FOCUS_BACKEND": None})
        found = blender.ask("found_backend")
        if found:
            raise SkippedError(f"another backend is installed on this machine: {found}")
        told = expect_failure(blender, stage.photo, "no backend was found on this machine")
        blender.ask("prefer", values={"executable": str(elsewhere)})
        return Seen(*told, next_photo(blender, stage.photo))


def executable_is_folder(stage: Stage) -> Seen:
    """The preferences name an empty folder."""
    return _with_executable(stage, stage.new_folder("empty"), "there is no focus-backend at")


def executable_is_missing(stage: Stage) -> Seen:
    """The preferences name nothing that is there."""
    return _with_executable(stage, stage.folder / "nowhere" / "focus-backend", "there is no focus-backend at")


def executable_is_text(stage: Stage) -> Seen:
    """The preferences name a file of text."""
    return _with_executable(stage, script(stage.new_folder("text") / "notes.txt", "hello\n", 0o644), "there is no focus-backend at")


def executable_ends_at_once(stage: Stage) -> Seen:
    """The preferences name another program."""
    other = script(stage.new_folder("other") / "focus-backend", f"#!/bin/sh\necho 'no such module' >&2\nexit {EXIT_CODE}\n")
    return _with_executable(stage, other, "the backend ended with exit code", "before it listened")


def executable_without_python(stage: Stage) -> Seen:
    """The environment of the backend has lost its Python."""
    other = script(stage.new_folder("other") / "focus-backend", f"#!{stage.folder}/gone/python\n")
    return _with_executable(stage, other, "cannot be run: the Python that it was installed with is gone")


def breaker(stage: Stage) -> Seen:
    """A backend that ends at once, again and again: after three starts it is left alone until Start is pressed."""
    blender, starts = stage.ordinary, stage.folder / "starts"
    other = script(stage.new_folder("other") / "focus-backend", f"#!/bin/sh\necho start >> '{starts}'\nexit {EXIT_CODE}\n")
    blender.ask("prefer", values={"executable": str(other)})
    try:
        for _ in range(3):
            expect_failure(blender, stage.photo, "before it listened")
        told = expect_failure(blender, stage.photo, "the backend ended again and again")
        if (count := len(starts.read_text().splitlines())) != 3:
            raise WindowTestError(f"the program was started {count} times")
    finally:
        blender.ask("prefer", values=ALL_PREFERENCES)
    blender.ask("press", operator="start_backend")
    return Seen(*told, f"{next_photo(blender, stage.photo)}, after Start")


def _with_executable(stage: Stage, executable: Path, *fragments: str) -> Seen:
    blender = stage.ordinary
    blender.ask("prefer", values={"executable": str(executable)})
    try:
        told = expect_failure(blender, stage.photo, *fragments)
    finally:
        blender.ask("prefer", values=ALL_PREFERENCES)
    return Seen(*told, next_photo(blender, stage.photo))


def offline(stage: Stage) -> Seen:
    """Another machine, while Blender may not go online: nothing is sent; and with access, nobody there is told apart."""
    blender = stage.ordinary
    if blender.ask("online", allowed=False):
        raise WindowTestError("Blender goes online all the same")
    blender.ask("prefer", values={"backend_mode": "CONNECT", "address": ELSEWHERE})
    try:
        told = expect_failure(blender, stage.photo, "is on another machine, and Blender's online access is off")
        if _reaches_out(blender):
            raise WindowTestError("a connection to another machine was tried")
        blender.ask("online", allowed=True)
        expect_failure(blender, stage.photo, "is on another machine and lets in known keys only")
    finally:
        blender.ask("online", allowed=False)
        blender.ask("prefer", values=ALL_PREFERENCES)
    return Seen(*told, f"{next_photo(blender, stage.photo)}, offline too")


def _reaches_out(blender: PlayedBlender) -> bool:
    return ELSEWHERE_IN_HEXADECIMAL in (PROC / str(blender.pid) / "net" / "tcp").read_text()


BACKEND_CASES: dict[str, Case] = {
    "backend killed (-9) at work": kill_backend,
    "worker killed (-9) at work": kill_worker,
    "port of a ready file taken by another program": port_taken,
    "port of a ready file taken by a program that is silent": port_taken_silently,
    "no backend at the address": no_listener,
    "backend of another protocol version": other_version,
    "no backend installed": no_backend,
    "path in the preferences: empty folder": executable_is_folder,
    "path in the preferences: nothing there": executable_is_missing,
    "path in the preferences: text file": executable_is_text,
    "path in the preferences: program that ends at once": executable_ends_at_once,
    "path in the preferences: its Python is gone": executable_without_python,
    "backend ends at each of three starts": breaker,
    "offline, address on another machine": offline,
}
