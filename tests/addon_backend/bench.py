"""A session on a bench: what Blender's timer does, in a loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from addon_backend.program import write_program
from blender_addon.head import PhotoPlan
from blender_addon.options import ReconstructionOptions, SceneOptions
from blender_addon.session.job import Job
from blender_addon.session.session import Session
from blender_addon.session.settings import BackendSettings

ORDERS = "addon_backend.orders:load_orders"
HEADS = "addon_backend.heads:load_heads"
# Guards against hanging; a test that gets there has failed.
PATIENCE = 60.0


class Bench:
    """Drives a session.

    Attributes:
        session: that is driven.
        stages: every state and stage of every job that was seen, in order, without repetition.
        plans: what was taken, by the job.

    Args:
        session: to drive.
        folder: for photos.
    """

    def __init__(self, session: Session, folder: Path) -> None:
        self.session = session
        self.stages: dict[int, list[tuple[str, str]]] = {}
        self.plans: dict[int, PhotoPlan] = {}
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def photo(self, orders: str, name: str = "photo.jpg") -> Path:
        """A file with orders for the test pipelines."""
        path = self._folder / name
        path.write_text(orders, encoding="utf-8")
        return path

    def submit(self, orders: str = "faces 1", name: str = "photo.jpg", *, scene: SceneOptions | None = None, **options: object) -> Job:
        """Submits a photo with orders."""
        return self.submit_file(self.photo(orders, name), scene=scene, **options)

    def submit_file(self, path: Path, *, scene: SceneOptions | None = None, **options: object) -> Job:
        """Submits a file, whatever it is."""
        job = self.session.submit(path, ReconstructionOptions(**options), scene or SceneOptions())  # type: ignore[arg-type]
        self._look()
        return job

    def turn(self) -> None:
        """One call of the timer."""
        self.session.tick()
        self._look()
        while (taken := self.session.take_plan()) is not None:
            self.plans[taken[0].number] = taken[1]
        self._look()

    def until(self, is_true: Callable[[], bool]) -> None:
        """Turns until something is true."""
        latest = time.monotonic() + PATIENCE
        while not is_true():
            self.turn()
            if time.monotonic() > latest:
                jobs = [(job.state, job.stage, str(job.error)) for job in self.session.jobs]
                raise TimeoutError(f"it does not come true: {jobs}, {self.session.status}")
            time.sleep(0.01)

    def until_ended(self, *jobs: Job) -> None:
        """Turns until jobs have ended."""
        self.until(lambda: all(job.has_ended for job in jobs))

    def until_state(self, job: Job, state: str) -> None:
        """Turns until a job has a state; fails when it ends instead."""
        self.until(lambda: job.state == state or job.has_ended)
        assert job.state == state, (job.state, job.error)

    def backend_pid(self) -> int:
        """The process of the session's own backend."""
        process = self.session._backend._process._process
        assert process is not None
        return process.pid

    def record_requests(self) -> list[object]:
        """A list that grows with every message the session sends."""
        sent: list[object] = []
        backend = self.session._backend
        send = backend.send
        backend.send = lambda body, arrays=None: sent.append(body) or send(body, arrays)  # type: ignore[method-assign, func-returns-value]
        return sent

    def _look(self) -> None:
        for job in self.session.jobs:
            seen = self.stages.setdefault(job.number, [])
            if not seen or seen[-1] != (job.state, job.stage):
                seen.append((job.state, job.stage))


def make_bench(folder: Path, pipeline: str = ORDERS, **program: object) -> Bench:
    """A bench whose session starts a backend with a test pipeline; close its session.

    Args:
        folder: for everything.
        pipeline: of the backend's workers.
        program: for `write_program`.
    """
    session = Session(folder / "own", os.getpid())
    session.settings = BackendSettings(executable=str(write_program(folder, pipeline, **program)))  # type: ignore[arg-type]
    return Bench(session, folder / "photos")


def benches_in(folder: Path) -> Iterator[Callable[..., Bench]]:
    """For a fixture: `make_bench` in folders of their own, all closed at the end."""
    made: list[Bench] = []

    def make_one(pipeline: str = ORDERS, **program: object) -> Bench:
        made.append(make_bench(folder / f"bench{len(made)}", pipeline, **program))
        return made[-1]

    yield make_one
    for bench in made:
        bench.session.close()


def is_alive(pid: int) -> bool:
    """Whether the process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
