"""Quick pipelines that tests hand to real worker processes, by name: "pipelines:load_quick".

They do what the photo's bytes say, one order a line:
    sleep SECONDS       in small steps that report progress and can be cancelled
    until PATH          the same until the file is there
    hang                the same without end, deaf to cancelling
    faces COUNT         the result has so many faces
    bytes COUNT         the result has an array "photo" of so many bytes
    crash               the process kills itself
    raise / memory / no-face / exit / cuda     errors of that sort
    crash-once PATH     kills the process unless the file is there, which is made first
"""

from __future__ import annotations

import os
import signal
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from focus_backend.errors import CancelledError, ConfigError, NoFaceError
from focus_backend.serving import wire
from focus_backend.serving.config import PipelineConfig
from focus_backend.serving.pipeline import Job, PipelineInfo

VERTICES = 4
MODEL = wire.ModelInfo("quick", "0" * 64, VERTICES, ["jawOpen"])
_STEP_SECONDS = 0.02


class Picture:
    """As much of a numpy array as a preview needs: this file has to start fast."""

    shape = (2, 2, 3)

    def __getitem__(self, _key: Any) -> Picture:
        return self

    def tobytes(self) -> bytes:
        """All items."""
        return bytes(range(12))


class QuickPipeline:
    """Follows orders instead of looking for faces."""

    info = PipelineInfo(models=[MODEL], methods=["fit", "network"], parts=["geometry", "photo"], device="cpu")

    def warm_up(self) -> None:
        """Has nothing to warm."""

    def run(
        self,
        jobs: Sequence[Job],
        watches: Sequence[Callable[..., None]],
        deliver: Callable[[int, wire.Result | Exception, dict[str, wire.Array]], None],
    ) -> None:
        """Each after the other."""
        for index, (job, watch) in enumerate(zip(jobs, watches, strict=True)):
            started = time.monotonic()
            try:
                faces, size = _follow(_orders(job), watch)
            except (NoFaceError, CancelledError) as error:
                deliver(index, error, {})
                continue
            arrays = {f"face{face}/{name}": _offsets(face) for face in range(faces) for name in ("neutral", "expression")}
            if size:
                arrays["photo"] = wire.Array("uint8", (size,), b"\x07" * size)
            found = [wire.Face(face, [], {"pid": os.getpid(), "batch": len(jobs)}) for face in range(faces)]
            deliver(index, wire.Result(found, MODEL, list(job.request.parts), time.monotonic() - started), arrays)


def _orders(job: Job) -> list[list[str]]:
    photo = job.arrays.get("photo") or job.arrays["pixels"]
    return [line.split() for line in bytes(photo.data).decode("utf-8", "replace").splitlines() if line.strip()]


def _follow(orders: list[list[str]], watch: Callable[..., None]) -> tuple[int, int]:
    """Faces and bytes of the result."""
    faces, size = 1, 0
    watch("landmarks", 0.0)
    for verb, *rest in orders:
        if verb == "sleep":
            _sleep(float(rest[0]), watch)
        elif verb == "until":
            while not Path(rest[0]).exists():
                _sleep(_STEP_SECONDS, watch)
        elif verb == "hang":
            while True:
                time.sleep(1)
        elif verb == "faces":
            faces = int(rest[0])
        elif verb == "bytes":
            size = int(rest[0])
        elif verb == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        elif verb == "crash-once" and not Path(rest[0]).exists():
            Path(rest[0]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        elif verb in _FAILURES:
            raise _FAILURES[verb]()
    watch("result", 1.0)
    return faces, size


_FAILURES: dict[str, Callable[[], BaseException]] = {
    "raise": lambda: ZeroDivisionError("a bug in /home/somebody/holiday.jpg"),
    "memory": MemoryError,
    "no-face": lambda: NoFaceError("no face in the photo", "give landmarks"),
    "exit": lambda: SystemExit(3),
    "cuda": lambda: RuntimeError("CUDA error: an illegal memory access was encountered"),
}


def _sleep(seconds: float, watch: Callable[..., None]) -> None:
    started = time.monotonic()
    while (passed := time.monotonic() - started) < seconds:
        watch("fit", passed / seconds, Picture)
        time.sleep(min(_STEP_SECONDS, seconds - passed))


def _offsets(face: int) -> wire.Array:
    values = array("f", [float(face)] * (3 * VERTICES))
    return wire.Array("float32", (VERTICES, 3), values.tobytes())


def load_quick(config: PipelineConfig) -> QuickPipeline:
    """Ready at once."""
    return QuickPipeline()


def load_slowly(config: PipelineConfig) -> QuickPipeline:
    """Ready after a while."""
    time.sleep(0.7)
    return QuickPipeline()


def load_never(config: PipelineConfig) -> QuickPipeline:
    """Cannot be loaded, for a reason the user can change."""
    raise ConfigError("there are no such weights", "give others with --weights")


def load_broken(config: PipelineConfig) -> QuickPipeline:
    """Cannot be loaded, by a bug."""
    raise ZeroDivisionError("a bug")


def load_dying(config: PipelineConfig) -> QuickPipeline:
    """Dies while it loads."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
