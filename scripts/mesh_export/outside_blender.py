"""The batch with plain Python: reconstruction and scenes in processes of their own, several photos at once."""

from __future__ import annotations

import importlib.util
import os
import queue
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any

from focus_backend.photo_paths import photo_hash

from .arguments import Arguments
from .manifest import is_done, read_manifest
from .outcome import FaceFiles, Failure, PhotoFailedError, PhotoOutcome, failure_of
from .output_folder import is_usable
from .photos import Photo
from .reconstruction import LocalSource, ServerSource, Source
from .report import Report
from .scene import Addon, photo_path, write_photo
from .worker_process import BatchStoppedError, Work, WorkerProcess


def run_outside(arguments: Arguments, photos: Sequence[Photo], report: Report) -> None:
    """Works through the photos, several at once, and notes how each ended.

    Raises:
        BatchStoppedError: going on would be in vain.
        KeyboardInterrupt: the user has had enough; nothing is under way any more.
    """
    _check_packages()
    batch = _Batch(arguments, frozenset(photo.name.casefold() for photo in photos))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        futures: list[Future[PhotoOutcome]] = []
        try:
            futures += [pool.submit(batch.work, photo) for photo in photos]
            for future in as_completed(futures):
                report.add(future.result())
                if not is_usable(arguments.out, report.outcomes[-1]):
                    raise BatchStoppedError(Failure("output", f"{arguments.out} cannot be written", "choose another folder, or make room"))
        except BaseException:
            for future in futures:
                future.cancel()
            batch.stop()
            raise
    batch.close()


def _check_packages() -> None:
    for name, remedy in (
        ("torch", "install focus-backend, or run this script in Blender: blender -b -P export_meshes.py -- ..."),
        ("bpy", "pip install bpy (it has its own Python version), or run this script in Blender: blender -b -P export_meshes.py -- ..."),
    ):
        if importlib.util.find_spec(name) is None:
            raise BatchStoppedError(Failure("missing-dependency", f"the Python package {name} is not installed", remedy))


class _Batch:
    """What all photos share: as many lanes as photos are worked on at once, each with its own processes."""

    def __init__(self, arguments: Arguments, reserved: frozenset[str]) -> None:
        self._arguments, self._reserved = arguments, reserved
        server = ServerSource(arguments) if arguments.server is not None else None
        self._lanes: queue.SimpleQueue[tuple[Source, WorkerProcess]] = queue.SimpleQueue()
        self._all: list[tuple[Source, WorkerProcess]] = []
        for _ in range(arguments.jobs):
            lane = (server or LocalSource(arguments), WorkerProcess(prepare_scene, arguments, "Blender's scene"))
            self._lanes.put(lane)
            self._all.append(lane)

    def work(self, photo: Photo) -> PhotoOutcome:
        """How a photo ended; in one of several threads.

        Raises:
            BatchStoppedError: so would all others.
        """
        since = time.monotonic()
        if photo.failure is not None:
            return PhotoOutcome(photo.path, "failed", failure=photo.failure)
        sha256 = photo_hash(photo.path)
        if self._arguments.skip_existing and is_done(self._arguments.out, photo.name, sha256, self._arguments):
            faces = read_manifest(self._arguments.out, photo.name)["faces"]
            return PhotoOutcome(photo.path, "skipped", tuple(FaceFiles(face["name"], face["files"]) for face in faces))
        source, scene = lane = self._lanes.get()
        try:
            faces = scene.call(source.answer(photo.path), photo, sha256, self._reserved)
        except BatchStoppedError:
            raise
        except Exception as error:  # one photo's failure, even our own fault, must not cost the others
            return PhotoOutcome(photo.path, "failed", (), time.monotonic() - since, failure_of(error, traceback.format_exc()))
        finally:
            self._lanes.put(lane)
        return PhotoOutcome(photo.path, "done", faces, time.monotonic() - since)

    def stop(self) -> None:
        """Gives up everything at once."""
        for source, scene in self._all:
            source.stop()
            scene.stop()

    def close(self) -> None:
        """Ends the processes, which have nothing to do."""
        for source, scene in self._all:
            source.stop()
            scene.close()


def prepare_scene(arguments: Arguments) -> Work:
    """An empty Blender in this process; the work gives the files of a photo's faces."""
    # Blender and its exporters tell on stdout what nobody asked.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import bpy

    from focus_backend.serving import wire

    # Only the built extension has a copy of its own.
    sys.modules.setdefault("blender_addon.wire", wire)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    addon = Addon("blender_addon")
    addon.check_formats(arguments)

    def write(frames: list[bytes], photo: Photo, sha256: str | None, reserved: frozenset[str]) -> tuple[FaceFiles, ...]:
        message: Any = wire.unpack(frames, (wire.Result,), wire.ANSWER_LIMITS)
        if not message.body.faces:
            raise PhotoFailedError(
                Failure("protocol", f"the answer for {photo.path.name} has no faces", "use the same FOCUS version everywhere")
            )
        plan = addon.module("planning.plan").plan_photo(message.body, message.arrays, photo_path(photo), addon.scene_options(arguments))
        return write_photo(addon, plan, photo, sha256, arguments, reserved)

    return write
