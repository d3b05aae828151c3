"""What a worker does with requests: the interface, and the way to the real pipeline, whose module takes seconds to load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from focus_backend.serving import wire
from focus_backend.serving.config import PipelineConfig

# Draws a picture, a uint8 array [height width 3].
Preview = Callable[[], Any]
# Takes the place of a job, its result or why there is none, and the result's arrays.
Deliver = Callable[[int, wire.Result | Exception, dict[str, wire.Array]], None]


@dataclass(frozen=True)
class Job:
    """A request and what it may ask for.

    Attributes:
        request: as it came.
        arrays: that came with it, views of its frames.
        limits: of the server.
    """

    request: wire.Reconstruct
    arrays: Mapping[str, wire.Array]
    limits: wire.Limits


@runtime_checkable
class Watch(Protocol):
    """Is told how far a job is, at least some ten times a second but while a photo is decoded or a network runs."""

    def __call__(self, stage: str, fraction: float, preview: Preview | None = None) -> None:
        """Takes note.

        Raises:
            CancelledError: the request was given up.
        """
        ...


@dataclass(frozen=True)
class PipelineInfo:
    """What a pipeline can do.

    Attributes:
        models: face models; the first is used.
        methods: for `Options.method`; the first is the default.
        parts: for `Reconstruct.parts`.
        device: where the networks run.
    """

    models: list[wire.ModelInfo]
    methods: list[str]
    parts: list[str]
    device: str


@runtime_checkable
class Pipeline(Protocol):
    """Does requests; called from one thread at a time.

    Attributes:
        info: what it can do.
    """

    info: PipelineInfo

    def warm_up(self) -> None:
        """Makes the first request as fast as any other."""
        ...

    def run(self, jobs: Sequence[Job], watches: Sequence[Watch], deliver: Deliver) -> None:
        """Does jobs that came together, and delivers each once, as soon as it is done, failed or given up.

        Args:
            jobs: the requests.
            watches: one a job; all of them are told all the time, so that any job can be given up at any time.
            deliver: takes the outcomes.
        """
        ...


def load_pipeline(config: PipelineConfig) -> Pipeline:
    """The real pipeline; torch and the networks are imported here and not before.

    Raises:
        FocusError: the model, the detector or the weights cannot be loaded, or the configuration contradicts itself.
    """
    from focus_backend.reconstruction.loading import use_threads

    use_threads(config.threads)
    from focus_backend.serving.photo_pipeline import PhotoPipeline

    return PhotoPipeline.load(config)
