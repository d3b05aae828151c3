"""A Blender that does what it is told and says what its panel shows, the extension installed from the zip for it alone."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from scripts.window_test.processes import PROC, descendants, is_running
from scripts.window_test.screen import HEIGHT, WIDTH, Screen, WindowTestError

PLAYER = Path(__file__).with_name("faults_player.py")
MARK = "FOCUS_FAULTS"
OPEN_SECONDS, ANSWER_SECONDS, JOB_SECONDS, END_SECONDS = 90.0, 60.0, 240.0, 15.0
UNDER_WAY = ("waiting", "reading", "sent", "running", "planning")
Value = TypeVar("Value")


class SkippedError(Exception):
    """The case cannot be played here; says why."""


@dataclass(frozen=True)
class Setting:
    """How a Blender is opened.

    Attributes:
        command: that starts it, in words.
        extension: the zip.
        folder: empty; for everything it writes.
        environment: variables besides this process's own.
        before: commands of the shell that run in a mount namespace of its own before Blender does; they need root.
        user: its user folder; None for one in `folder`.
        screen: for a window; None for none.
    """

    command: Sequence[str]
    extension: Path
    folder: Path
    environment: dict[str, str]
    before: Sequence[str] = ()
    user: Path | None = None
    screen: Screen | None = None


@dataclass
class PlayedBlender:
    """A running Blender.

    Attributes:
        setting: how it was opened.
        process: that was started.
        pid: of Blender itself, whatever started it.
        stands: versions and operators.
        mark: in its environment, by which it and all that it starts are known.
    """

    setting: Setting
    process: subprocess.Popen[bytes]
    pid: int = 0
    stands: dict[str, Any] = field(default_factory=dict)
    mark: str = ""
    _socket: socket.socket | None = None
    _answers: dict[int, Future[Any]] = field(default_factory=dict)
    _number: int = 0

    def begin(self, name: str, /, **arguments: Any) -> Future[Any]:
        """Has something done; the future holds the answer, WindowTestError where it raised or Blender went away."""
        assert self._socket is not None
        self._number += 1
        answer: Future[Any] = Future()
        self._answers[self._number] = answer
        line = json.dumps({"number": self._number, "name": name, "arguments": arguments})
        try:
            self._socket.sendall(f"{line}\n".encode())
        except OSError as error:
            raise WindowTestError(f"Blender has ended:\n{self.log_end()}") from error
        return answer

    def ask(self, name: str, seconds: float = ANSWER_SECONDS, /, **arguments: Any) -> Any:
        """The answer."""
        return self.answer_of(self.begin(name, **arguments), seconds)

    def answer_of(self, future: Future[Any], seconds: float = JOB_SECONDS) -> Any:
        """What was begun; WindowTestError where it takes longer."""
        try:
            return future.result(seconds)
        except NotYetError:
            raise WindowTestError(f"Blender did not answer within {seconds:.0f} s; its panel: {self.look()}") from None

    def look(self) -> dict[str, Any]:
        """What the panel shows now, also while an operator runs."""
        return self.ask("look", 20)

    def wait_for(self, what: str, look: Callable[[], Value], seconds: float = ANSWER_SECONDS) -> Value:
        """The first true value; WindowTestError naming `what` after so many seconds."""
        give_up = time.monotonic() + seconds
        while not (seen := look()):
            if time.monotonic() > give_up:
                raise WindowTestError(f"not within {seconds:.0f} s: {what}; the panel: {self.look()}")
            time.sleep(0.05)
        return seen

    def job(self) -> dict[str, Any]:
        """The newest; {} before the first."""
        return max(self.look()["jobs"], key=lambda job: job["number"], default={})

    def begin_slow(self, photo: Path) -> Future[Any]:
        """Begins a photo that takes a while, and returns when the backend works on it."""
        before = self.job().get("number", 0)
        begun = self.begin("reconstruct", filepath=str(photo), method="fit")

        def runs() -> bool:
            job = self.job()
            if job.get("number", 0) > before and job["state"] not in UNDER_WAY:
                raise WindowTestError(f"the photo had ended before the fault: {self.look()}")
            return job.get("number", 0) > before and job["state"] == "running" and job["fraction"] > 0

        self.wait_for("the backend works on the photo", runs, JOB_SECONDS)
        return begun

    def wait_for_end(self, seconds: float = JOB_SECONDS) -> dict[str, Any]:
        """The newest job when it has ended."""
        self.wait_for("the photo ends", lambda: self.job()["state"] not in UNDER_WAY, seconds)
        return self.job()

    def good_photo(self, photo: Path) -> float:
        """Reconstructs a photo with a face; seconds from the button to the head, WindowTestError where it fails."""
        before, begun = self.job().get("number", 0), time.monotonic()
        answer = self.ask("reconstruct", JOB_SECONDS, filepath=str(photo), method="auto")
        if answer["said"] or answer["result"] != "FINISHED":
            raise WindowTestError(f"the next good photo failed: {answer}")
        job = self.wait_for_end()
        if job["number"] <= before or job["state"] != "finished":
            raise WindowTestError(f"the next good photo did not end well: {job}, {self.look()}")
        self.wait_for("a head in the scene", lambda: any(head["vertices"] for head in self.ask("heads")))
        return time.monotonic() - begun

    def backends(self) -> list[int]:
        """Processes that Blender itself has started, without theirs."""
        under = descendants(self.pid)
        return [pid for pid in under if _parent(pid) == self.pid]

    def workers(self) -> list[int]:
        """Processes that its backends have started."""
        own = self.backends()
        return [pid for pid in descendants(self.pid) if pid not in own]

    def orphans(self) -> list[str]:
        """What this Blender or its backends have started and is under it no more, after some seconds of grace."""
        return self._left(lambda: {self.pid, self.process.pid, *descendants(self.pid)} if is_running(self.pid) else set())

    def _left(self, allowed: Callable[[], set[int]], seconds: float = END_SECONDS) -> list[str]:
        give_up = time.monotonic() + seconds
        while (left := _marked(self.mark) - allowed()) and time.monotonic() < give_up:
            time.sleep(0.1)
        return [f"{pid} {_command(pid)}" for pid in sorted(left)]

    def quit(self) -> float:
        """Ends it by its own means; seconds it took. WindowTestError where it does not end well or has printed an exception."""
        begun = time.monotonic()
        self.begin("quit_blender")
        try:
            status = self.process.wait(END_SECONDS + 10)
        except subprocess.TimeoutExpired:
            raise WindowTestError("Blender did not quit") from None
        took = time.monotonic() - begun
        if status or self.tracebacks():
            raise WindowTestError(f"Blender ended with status {status}: {self.tracebacks() or self.log_end()}")
        return took

    def end(self) -> list[str]:
        """Ends it somehow, and kills what it leaves; names of that."""
        if self.process.poll() is None:
            with contextlib.suppress(WindowTestError):
                self.quit()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        left = self._left(set)
        for pid in _marked(self.mark):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if self._socket is not None:
            self._socket.close()
        return left

    def log_end(self, lines: int = 15) -> str:
        """The last lines of what Blender printed."""
        return "\n".join((self.setting.folder / "blender.log").read_text(errors="replace").splitlines()[-lines:])

    def tracebacks(self) -> str:
        """What Blender printed of exceptions in Python; "" where there was none."""
        text = (self.setting.folder / "blender.log").read_text(errors="replace")
        return text[text.index("Traceback") :][:3000] if "Traceback" in text else ""

    def attach(self, connection: socket.socket) -> None:
        """From now on it can be asked."""
        connection.settimeout(None)
        self._socket = connection
        threading.Thread(target=self._listen, args=(connection,), daemon=True).start()

    def _listen(self, connection: socket.socket) -> None:
        """Takes answers until Blender hangs up."""
        with contextlib.suppress(OSError), connection.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                content = json.loads(line)
                answer = self._answers.pop(content["number"])
                if "exception" in content:
                    answer.set_exception(WindowTestError(f"inside Blender: {content['exception']}"))
                else:
                    answer.set_result(content["answer"])
        for answer in list(self._answers.values()):
            answer.set_exception(WindowTestError("Blender has ended"))


def open_blender(setting: Setting) -> PlayedBlender:
    """Installs the extension into its user folder, opens it and waits until it answers.

    Raises:
        SkippedError: what has to run before needs root.
        WindowTestError: it cannot be installed, or does not open.
    """
    setting.folder.mkdir(parents=True)
    user = setting.user or setting.folder / "user"
    mark = secrets.token_hex(8)
    variables = {**os.environ, **setting.environment, "BLENDER_USER_RESOURCES": str(user), MARK: mark}
    if setting.screen is not None:
        variables["DISPLAY"] = setting.screen.display
    if not (user / "extensions").exists():
        user.mkdir(parents=True, exist_ok=True)
        _install(setting, variables)
    with socket.socket(socket.AF_UNIX) as listener:
        path = setting.folder / "talk"
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(1.0)
        process = _start(setting, variables, path)
        blender = PlayedBlender(setting, process, mark=mark)
        try:
            blender.attach(_accept(listener, blender))
            blender.stands = blender.ask("stand")
            blender.pid = blender.stands["pid"]
            blender.ask("heads", OPEN_SECONDS)
        except BaseException:
            blender.end()
            raise
    return blender


def _accept(listener: socket.socket, blender: PlayedBlender) -> socket.socket:
    give_up = time.monotonic() + OPEN_SECONDS
    while time.monotonic() < give_up:
        if blender.process.poll() is not None:
            break
        with contextlib.suppress(TimeoutError):
            return listener.accept()[0]
    raise WindowTestError(f"Blender did not open:\n{blender.log_end()}")


def _install(setting: Setting, variables: dict[str, str]) -> None:
    command = [*setting.command, "--command", "extension", "install-file", "--repo", "user_default", "--enable", str(setting.extension)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=OPEN_SECONDS, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise WindowTestError(f"the extension could not be installed: {done.stdout[-1000:]}{done.stderr[-2000:]}")


def _start(setting: Setting, variables: dict[str, str], talk: Path) -> subprocess.Popen[bytes]:
    window = ["--window-geometry", "0", "0", str(WIDTH), str(HEIGHT)] if setting.screen is not None else ["--background"]
    command = [*setting.command, *window, "--python", str(PLAYER), "--", str(talk)]
    if setting.before:
        if os.geteuid():
            raise SkippedError("needs root, to mount")
        script = " && ".join([*setting.before, 'exec "$@"'])
        command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", script, "inside", *command]
    with (setting.folder / "blender.log").open("wb") as log:
        # Ctrl-C reaches all of a terminal's group: this is one of its own.
        return subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _marked(mark: str) -> set[int]:
    """Processes with this mark in their environment, whoever their parent is now."""
    wanted, found = f"{MARK}={mark}".encode(), set()
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0") and is_running(int(entry.name)):
                    found.add(int(entry.name))
    return found


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    return ""
