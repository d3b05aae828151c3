# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state machine between the panel and the backend: photos go in, plans of scenes come out."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from .. import wire
from ..connection.channel import Event
from ..connection.credentials import is_loopback
from ..errors import AddonError
from ..head import PhotoPlan
from ..options import ReconstructionOptions, SceneOptions
from ..planning.plan import plan_photo
from . import job as states
from . import messages
from .backend import CONNECTING, FAILED, GREETING, OPEN, Backend
from .job import Job
from .kept_models import KeptModels, missing_parts
from .photo_reading import PhotoFile, check_photo, read_photo
from .requests import STARTING_STAGE, Request, model_parts, most_photo_bytes, preview_in, request_for, shown_stage, waiting_stage
from .settings import CONNECT, BackendSettings
from .status import BackendStatus, status_of
from .worker import BackgroundWorker

_MOST_IN_FLIGHT = 4
_ENDED_KEPT = 20
# A backend that is lost so often without one result in between is not started for the next photo.
_MOST_LOSSES = 3
_BUSY = (states.READING, states.SENT, states.RUNNING, states.PLANNING)


class Session:
    """All photos on their way, and the backend they need. Only Blender's main thread calls it, and it never blocks.

    Attributes:
        jobs: under way, and the last that have ended, oldest first.
        error: the last; set it to None when the user has read it.

    Args:
        folder: the extension's own, for the backend's log and ready file.
        parent_pid: of Blender, with which a backend of ours ends.
    """

    def __init__(self, folder: Path, parent_pid: int) -> None:
        self.jobs: list[Job] = []
        self.error: AddonError | None = None
        self._settings = BackendSettings()
        self._backend = Backend(folder, parent_pid)
        self._kept = KeptModels()
        self._files = BackgroundWorker("focus-face-files")
        self._planner = BackgroundWorker("focus-face-planner")
        self._requests: dict[Job, Request] = {}
        self._job_of: dict[str, Job] = {}
        self._plans: deque[tuple[Job, PhotoPlan]] = deque()
        self._seen_failure: AddonError | None = None
        self._most_in_flight = _MOST_IN_FLIGHT
        self._losses = 0
        self._count = 0
        self._is_closed = False

    @property
    def settings(self) -> BackendSettings:
        """How the backend is reached; may be set at any time, used when it is next started or connected."""
        return self._settings

    @settings.setter
    def settings(self, settings: BackendSettings) -> None:
        self._settings = settings
        address = self._backend.address
        if self._backend.state in (GREETING, OPEN) and not settings.online and not is_loopback(address):
            self._backend.fail(messages.offline(address))
            self._take_failure()
        elif self._backend.state == CONNECTING and self._backend.settings.online and not settings.online:
            # What is being looked up may be on another machine: once more, by the new settings.
            self._backend.connect(settings)

    @property
    def is_working(self) -> bool:
        """Whether any photo is under way."""
        return any(not job.has_ended for job in self.jobs)

    @property
    def status(self) -> BackendStatus:
        """How the backend is."""
        is_running = any(job.state == states.RUNNING for job in self.jobs)
        return status_of(self._backend, sum(job.state in _BUSY for job in self.jobs), is_running=is_running)

    @property
    def log_path(self) -> Path:
        """Where a backend of ours writes its log; the file may be missing."""
        return self._backend.log_path

    def submit(self, photo: Path, options: ReconstructionOptions, scene_options: SceneOptions) -> Job:
        """Puts a photo in line, and starts or connects the backend if there is none. What goes wrong ends the job.

        Raises:
            AddonError: the session was closed.
        """
        if self._is_closed:
            raise messages.closed()
        self._count += 1
        job = Job(self._count, photo, options, scene_options)
        self.jobs.append(job)
        self._losses = 0
        # The user hears of a photo that is missing before the backend has started.
        self._files.do(lambda: check_photo(photo), lambda outcome: self._checked(job, outcome))
        self._dispatch()
        return job

    def cancel(self, job: Job) -> None:
        """Gives a photo up, wherever it is; nothing if it has ended."""
        self._give_up(job, messages.cancelled(job.name))

    def cancel_all(self) -> None:
        """Gives all photos up."""
        for job in self._under_way():
            self.cancel(job)

    def start_backend(self) -> None:
        """Starts a backend of ours, also after it has failed too often.

        Raises:
            AddonError: photos are under way with another.
        """
        if self._backend.is_under_way and self._backend.is_ours:
            return
        self._make_room()
        self._backend.forget_failures()
        self._backend.start(self._settings)

    def connect(self) -> None:
        """Connects to a backend that runs, by the address and key file of the settings.

        Raises:
            AddonError: photos are under way with another.
        """
        self._make_room()
        self._backend.connect(self._settings)

    def stop_backend(self) -> None:
        """Gives up what the backend has not done, and ends it if it is ours; else the connection only."""
        for job in self._under_way():
            if job.state != states.PLANNING:
                self._give_up(job, messages.stopped(job.name))
        self._backend.close()

    def tick(self) -> None:
        """Takes what came and sends what is due. Cheap, never raises; call it some ten times a second."""
        if self._is_closed:
            return
        try:
            self._tick()
        except Exception as error:  # Blender would drop the timer, and every photo would wait for ever
            with contextlib.suppress(Exception):
                self._backend.fail(messages.unexpected(error))
            self._fail_all(self._under_way(), messages.unexpected(error))

    def take_plan(self) -> tuple[Job, PhotoPlan] | None:
        """A photo that is ready to be built; its job is finished thereby."""
        if not self._plans:
            return None
        job, plan = self._plans.popleft()
        self._end(job, states.FINISHED, "Done")
        job.fraction = 1.0
        return job, plan

    def close(self) -> None:
        """Gives up everything and ends our backend; at most a second."""
        if self._is_closed:
            return
        for job in self._under_way():
            self._end(job, states.CANCELLED, "Cancelled", messages.closed())
        self._is_closed = True
        self._plans.clear()
        self._files.close()
        self._planner.close()
        self._backend.end()
        self._planner.join(0.2)

    def _tick(self) -> None:
        self._files.take_outcomes()
        self._planner.take_outcomes()
        for event in self._backend.take_events():
            self._take(event)
        if self._backend.state == FAILED:
            self._take_failure()
        self._dispatch()
        for job in self._under_way():
            job.count_seconds()

    def _under_way(self) -> list[Job]:
        return [job for job in self.jobs if not job.has_ended]

    def _make_room(self) -> None:
        """Frees the place for another backend."""
        if self._is_closed:
            raise messages.closed()
        if self._requests:
            raise messages.under_way(len(self._requests))

    # What comes from the backend.

    def _take(self, event: Event) -> None:
        job = self._job_of.get(event.id)
        body = event.body
        if job is None:
            # Of one that was given up.
            return
        if isinstance(body, wire.Accepted) and job.state == states.SENT:
            job.stage = self._sent_stage(body.ahead)
        elif isinstance(body, wire.Progress):
            job.state, job.stage, job.fraction = states.RUNNING, shown_stage(body.stage), min(1.0, max(0.0, body.fraction))
            preview = preview_in(event.arrays)
            job.preview = job.preview if preview is None else preview
        elif isinstance(body, wire.Error):
            self._refused(job, body)
        elif isinstance(body, wire.Result):
            self._take_result(job, body, event)

    def _refused(self, job: Job, error: wire.Error) -> None:
        if error.code == "closing" and self._backend.is_ours:
            # Nobody asked it to: why it ends stands in its log when it has.
            self._backend.expect_end()
            return
        self._forget_request(job)
        if error.code == "busy" and self._requests:
            # Our own photos are too many or too large together: this one waits until one of them is done.
            self._most_in_flight = len(self._requests)
            job.state = states.WAITING
        else:
            self._fail(job, messages.of_answer(error))

    def _take_result(self, job: Job, result: wire.Result, event: Event) -> None:
        self._losses = 0
        self._backend.has_answered()
        request = self._forget_request(job)
        sha256 = result.model.sha256
        self._kept.keep(sha256, event.arrays)
        arrays = self._kept.with_model(sha256, event.arrays)
        missing = missing_parts(arrays, model_parts(job))
        if not missing:
            self._plan(job, result, arrays)
        elif request is None or request.is_second or set(missing) & set(request.body.parts):
            self._fail(job, messages.lacking(job.name, missing))
        elif self._backend.welcome is None:
            job.state = states.WAITING
        else:
            # Another model than its welcome had told of: once more, with all that belongs to it.
            self._send(job, request.photo, sha256)

    def _plan(self, job: Job, result: wire.Result, arrays: dict[str, wire.Array]) -> None:
        job.state, job.stage, job.fraction = states.PLANNING, "Planning the scene", 1.0
        photo, options = job.photo.absolute(), job.scene_options
        sha256 = result.model.sha256
        self._planner.do(lambda: plan_photo(result, arrays, photo, options), lambda outcome: self._planned(job, sha256, outcome))

    def _planned(self, job: Job, sha256: str, outcome: PhotoPlan | Exception) -> None:
        if isinstance(outcome, Exception):
            # Its model may be the reason, and must not cost all photos to come.
            self._kept.forget(sha256)
        if job.has_ended:
            return
        if isinstance(outcome, AddonError):
            self._fail(job, outcome)
        elif isinstance(outcome, Exception):
            self._fail(job, messages.unplanned(job.name, outcome))
        else:
            self._plans.append((job, outcome))

    def _take_failure(self) -> None:
        """The backend could not be opened, or was lost: what it had ends; what waits goes on with the next, unless that is hopeless."""
        error = self._backend.error
        if error is None or error is self._seen_failure:
            return
        self._seen_failure = self.error = error
        self._losses += 1
        for job in list(self._requests):
            self._fail(job, messages.lost(job.name, error, self._backend.is_ours))
        waiting = [job for job in self._under_way() if job.state in (states.WAITING, states.READING)]
        if not self._backend.was_open:
            self._fail_all(waiting, error)
        elif self._losses >= _MOST_LOSSES:
            self._fail_all(waiting, messages.keeps_ending(error))

    # What goes to the backend.

    def _checked(self, job: Job, outcome: Exception | None) -> None:
        if isinstance(outcome, Exception) and not job.has_ended:
            self._fail(job, outcome if isinstance(outcome, AddonError) else messages.unexpected(outcome))

    def _dispatch(self) -> None:
        """Opens the backend where photos wait for it, and hands it as many as it takes at once."""
        waiting = [job for job in self.jobs if job.state == states.WAITING]
        if not waiting or not self._open_backend():
            return
        backend = self._backend
        if backend.welcome is None:
            for job in waiting:
                job.stage = STARTING_STAGE if backend.is_ours else "Connecting to the backend"
            return
        busy = sum(job.state in _BUSY for job in self.jobs)
        if busy == 0:
            self._most_in_flight = _MOST_IN_FLIGHT
        # One that takes none would let them wait for ever: it shall refuse them itself.
        room = max(0, min(self._most_in_flight, max(1, backend.welcome.limits.requests_in_flight)) - busy)
        for job in waiting[:room]:
            self._read(job, most_photo_bytes(backend.welcome.limits))
        for place, job in enumerate(waiting[room:]):
            job.stage = waiting_stage(busy + room + place)

    def _open_backend(self) -> bool:
        """Whether the backend of the settings is open or being opened; not while another one still has work."""
        backend = self._backend
        if backend.is_under_way and not backend.settings.reaches_the_same_as(self._settings):
            if any(job.state in (states.READING, states.SENT, states.RUNNING) for job in self.jobs):
                return False
            backend.close()
        if not backend.is_under_way:
            (backend.connect if self._settings.mode == CONNECT else backend.start)(self._settings)
        return True

    def _read(self, job: Job, most_bytes: int) -> None:
        job.state, job.stage = states.READING, "Reading the photo"
        photo = job.photo
        # Apart, so that a drive that hangs holds up nothing but its own photos, and those can be given up.
        self._files.do_apart(lambda: read_photo(photo, most_bytes), lambda outcome: self._has_read(job, outcome))

    def _has_read(self, job: Job, outcome: PhotoFile | Exception) -> None:
        if job.state != states.READING:
            return
        if isinstance(outcome, Exception):
            self._fail(job, outcome if isinstance(outcome, AddonError) else messages.unexpected(outcome))
        elif self._backend.state != OPEN:
            # It was lost meanwhile: the photo is read anew for the next.
            job.state = states.WAITING
        else:
            self._send(job, outcome)

    def _send(self, job: Job, photo: PhotoFile, sha256: str | None = None) -> None:
        """Sends a job's photo, for the second time where the hash of the model has turned out to be another."""
        welcome = self._backend.welcome
        assert welcome is not None
        try:
            request = request_for(job, photo, welcome, self._kept, sha256)
        except AddonError as error:
            self._fail(job, error)
            return
        request.id = self._backend.send(request.body, {"photo": wire.Array("uint8", (len(photo.data),), photo.data)})
        self._requests[job] = request
        self._job_of[request.id] = job
        job.state, job.stage, job.fraction = states.SENT, self._sent_stage(0), 0.0

    def _sent_stage(self, ahead: int) -> str:
        welcome = self._backend.welcome
        # Next in line, but the workers still load, which takes far longer than a place in the line.
        return STARTING_STAGE if not ahead and welcome is not None and welcome.workers_ready == 0 else waiting_stage(ahead)

    # How jobs end.

    def _give_up(self, job: Job, error: AddonError) -> None:
        if job.has_ended:
            return
        request = self._requests.get(job)
        if request is not None and self._backend.state == OPEN:
            self._backend.send(wire.Cancel(request.id))
        self._plans = deque(entry for entry in self._plans if entry[0] is not job)
        self._end(job, states.CANCELLED, "Cancelled", error)

    def _fail_all(self, jobs: Iterable[Job], error: AddonError) -> None:
        for job in list(jobs):
            self._fail(job, messages.renewed(error))

    def _fail(self, job: Job, error: AddonError) -> None:
        self._end(job, states.FAILED, "Failed", error)
        self.error = error

    def _end(self, job: Job, state: str, stage: str, error: AddonError | None = None) -> None:
        self._forget_request(job)
        job.state, job.stage, job.error = state, stage, error
        job.count_seconds()
        ended = [one for one in self.jobs if one.has_ended]
        forgotten = set(ended[: max(0, len(ended) - _ENDED_KEPT)])
        self.jobs = [one for one in self.jobs if one not in forgotten]

    def _forget_request(self, job: Job) -> Request | None:
        request = self._requests.pop(job, None)
        if request is not None:
            self._job_of.pop(request.id, None)
        return request
