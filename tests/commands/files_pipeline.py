"""Pipelines without a fit for real worker processes; they answer with the files of results.

"commands.files_pipeline:load" makes plain results of the photos; "commands.files_pipeline:load_light" is there at once, without torch,
and its files hold next to nothing.

Names of photos tell it what to do besides: `slow` works until it is cancelled, `nap` for a moment, `meet` waits for another of its
sort, `options` fails and tells the request's options, `kill-server` does that.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from focus_backend.errors import LandmarkError
from focus_backend.serving import wire
from focus_backend.serving.config import PipelineConfig
from focus_backend.serving.pipeline import Job, PipelineInfo

MEETING = "FOCUS_TEST_MEETING"
_PATIENCE = 30.0
_NAP = 0.2


Faces = list[tuple[list[str], Mapping[str, bytes]]]


class FilesPipeline:
    """Does what photos are called.

    Args:
        faces_of: warnings and files of each face of a request's photo.
    """

    def __init__(self, faces_of: Callable[[Job], Faces]) -> None:
        self._faces_of = faces_of
        self._model = wire.ModelInfo("tiny", "0" * 64, 4, [])
        self.info = PipelineInfo(models=[self._model], methods=["fit", "network"], parts=["files"], device="cpu")

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
            try:
                deliver(index, *self._answer(job, watch))
            except Exception as error:  # noqa: PERF203
                deliver(index, error, {})

    def _answer(self, job: Job, watch: Callable[..., None]) -> tuple[wire.Result, dict[str, wire.Array]]:
        started = time.monotonic()
        _obey(job.request, watch)
        faces = self._faces_of(job)
        arrays = {
            f"face{index}/files/{name}": wire.Array.of(content) for index, (_, files) in enumerate(faces) for name, content in files.items()
        }
        found = [wire.Face(index, warnings, {}) for index, (warnings, _) in enumerate(faces)]
        return wire.Result(found, self._model, ["files"], time.monotonic() - started), arrays


def load(config: PipelineConfig) -> FilesPipeline:
    """Ready when torch is there."""
    from focus_backend.export.bundle import reconstruction_files, with_texture_size
    from focus_backend.landmarks.user_points import landmarks_in, landmarks_of
    from focus_backend.photo import read_photo
    from tests.conftest import PlainReconstructor, make_tiny_model

    reconstructor = PlainReconstructor(make_tiny_model())

    def faces_of(job: Job) -> Faces:
        options = job.request.options
        photo = read_photo(bytes(job.arrays["photo"].data), name=job.request.name)
        points = options.landmarks
        landmarks = None if points is None else landmarks_in(photo, landmarks_of({"points": points.points}, "the request"))
        faces = reconstructor.reconstruct(photo, landmarks=landmarks, max_faces=options.faces)
        return [(list(face.warnings), reconstruction_files(with_texture_size(face, options.texture_size))) for face in faces]

    return FilesPipeline(faces_of)


def load_light(config: PipelineConfig) -> FilesPipeline:
    """Ready at once."""

    def faces_of(job: Job) -> Faces:
        source = {"name": job.request.name, "sha256": hashlib.sha256(job.arrays["photo"].data).hexdigest()}
        return [([], {"result.json": json.dumps({"photo": source}).encode(), "neutral.obj": b"# no vertices"})]

    return FilesPipeline(faces_of)


def _obey(request: wire.Reconstruct, watch: Callable[..., None]) -> None:
    watch("fit", 0.5)
    if "kill-server" in request.name:
        # Answers to earlier requests are to get out.
        time.sleep(_NAP)
        os.kill(os.getppid(), signal.SIGKILL)
    if "options" in request.name:
        raise LandmarkError(json.dumps(dataclasses.asdict(request.options)))
    if "meet" in request.name:
        _wait(watch, until=_has_met())
    if "slow" in request.name or "kill-server" in request.name:
        _wait(watch, until=lambda: False)
    if "nap" in request.name:
        latest = time.monotonic() + _NAP
        _wait(watch, until=lambda: time.monotonic() > latest)


def _wait(watch: Callable[..., None], until: Callable[[], bool]) -> None:
    latest = time.monotonic() + _PATIENCE
    while not until():
        if time.monotonic() > latest:
            raise TimeoutError
        watch("fit", 0.5)
        time.sleep(0.02)


def _has_met() -> Callable[[], bool]:
    folder = Path(os.environ[MEETING])
    tempfile.mkstemp(dir=folder)
    return lambda: len(list(folder.iterdir())) > 1
