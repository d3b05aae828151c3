"""The batch inside Blender: the installed extension's session reconstructs, here or at a server, and this process builds the scenes."""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from focus_backend.photo_paths import photo_hash

from .arguments import Arguments
from .manifest import is_done, read_manifest
from .outcome import FaceFiles, Failure, PhotoOutcome, failure_of
from .output_folder import is_usable
from .photos import Photo
from .report import Report
from .scene import Addon, photo_path, write_photo
from .worker_process import BatchStoppedError

_EXTENSION = "focus_face"
_SECONDS_BETWEEN_TICKS = 0.02


def run_inside(arguments: Arguments, photos: Sequence[Photo], report: Report) -> None:
    """Works through the photos and notes how each ended.

    Raises:
        BatchStoppedError: the extension is missing, or going on would be in vain.
        KeyboardInterrupt: the user has had enough; nothing is under way any more.
    """
    addon = Addon(_extension_root())
    try:
        addon.check_formats(arguments)
    except addon.module("errors").AddonError as error:
        raise BatchStoppedError(failure_of(error)) from error
    if arguments.local:
        name = arguments.local[0][0]
        raise BatchStoppedError(Failure("config", f"--{name} is not known inside Blender", "set it in the extension's preferences"))
    # Its own, so that a Blender that runs beside keeps its backend to itself.
    with tempfile.TemporaryDirectory(prefix="focus_face_") as folder:
        session = addon.module("session.session").Session(Path(folder), os.getpid())
        try:
            session.settings = _settings(addon, arguments)
            _Batch(addon, session, arguments, photos, report).run()
        finally:
            session.close()


def _extension_root() -> str:
    """The package of the enabled extension.

    Raises:
        BatchStoppedError: it is not enabled in this Blender.
    """
    import bpy

    for name in bpy.context.preferences.addons.keys():  # noqa: SIM118 - Blender's collection has no iterator of names
        if name.rpartition(".")[2] == _EXTENSION:
            return str(name)
    problem = f"the FOCUS extension is not enabled in this Blender {bpy.app.version_string}"
    remedy = "enable it in the Preferences, or run this script with plain Python where focus-backend and bpy are installed"
    raise BatchStoppedError(Failure("missing-dependency", problem, remedy))


def _settings(addon: Addon, arguments: Arguments) -> Any:
    """The user's own, or the server that was named."""
    settings = addon.module("interface.backend_settings").read()
    if arguments.server is None:
        return settings
    is_address = "://" in arguments.server
    file = arguments.key
    if not is_address and arguments.server != "auto":
        file = Path(arguments.server)
    address, key_file = arguments.server if is_address else "", str(file.absolute()) if file is not None else ""
    return replace(settings, mode="connect", address=address, key_file=key_file)


class _Batch:
    """Photos on their way through the session."""

    def __init__(self, addon: Addon, session: Any, arguments: Arguments, photos: Sequence[Photo], report: Report) -> None:
        self._addon, self._session, self._arguments, self._report = addon, session, arguments, report
        self._waiting = deque(photos)
        self._under_way: dict[Any, tuple[Photo, str | None]] = {}
        self._reserved = frozenset(photo.name.casefold() for photo in photos)

    def run(self) -> None:
        """Until every photo has ended.

        Raises:
            BatchStoppedError: going on would be in vain.
        """
        while self._waiting or self._under_way:
            while self._waiting and len(self._under_way) < self._arguments.jobs:
                self._begin(self._waiting.popleft())
            self._session.tick()
            while (taken := self._session.take_plan()) is not None:
                self._build(*taken)
            for job in [job for job in self._under_way if job.has_ended]:
                photo, _ = self._under_way.pop(job)
                self._note(PhotoOutcome(photo.path, "failed", (), job.seconds, failure_of(job.error)))
            time.sleep(_SECONDS_BETWEEN_TICKS)

    def _begin(self, photo: Photo) -> None:
        arguments = self._arguments
        if photo.failure is not None:
            self._note(PhotoOutcome(photo.path, "failed", failure=photo.failure))
            return
        sha256 = photo_hash(photo.path)
        if arguments.skip_existing and is_done(arguments.out, photo.name, sha256, arguments):
            faces = read_manifest(arguments.out, photo.name)["faces"]
            self._note(PhotoOutcome(photo.path, "skipped", tuple(FaceFiles(face["name"], face["files"]) for face in faces)))
            return
        options = self._addon.module("options").ReconstructionOptions(
            method="" if arguments.method == "auto" else arguments.method,
            misfit=arguments.misfit,
            faces=arguments.faces or 0,
            texture_size=arguments.texture_size or 0,
        )
        job = self._session.submit(photo_path(photo), options, self._addon.scene_options(arguments))
        self._under_way[job] = (photo, sha256)

    def _build(self, job: Any, plan: Any) -> None:
        photo, sha256 = self._under_way.pop(job)
        since = time.monotonic()
        try:
            faces = write_photo(self._addon, plan, photo, sha256, self._arguments, self._reserved)
        except Exception as error:  # one photo's failure, even our own fault, must not cost the others
            seconds = job.seconds + time.monotonic() - since
            self._note(PhotoOutcome(photo.path, "failed", (), seconds, failure_of(error, traceback.format_exc())))
            return
        self._note(PhotoOutcome(photo.path, "done", faces, job.seconds + time.monotonic() - since))

    def _note(self, outcome: PhotoOutcome) -> None:
        self._report.add(outcome)
        if not is_usable(self._arguments.out, outcome):
            raise BatchStoppedError(Failure("output", f"{self._arguments.out} cannot be written", "choose another folder, or make room"))
