"""What the server is measured against: the library called in a process of its own, without a server."""

from __future__ import annotations

import importlib
import multiprocessing
import queue
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from benchmarks.serving.process import ServerOptions
from focus_backend.serving.config import PipelineConfig

LOADING_SECONDS = 180.0


@dataclass(frozen=True)
class Library:
    """Loaded once, with what a server's worker would load.

    Attributes:
        reconstructor: the library's own; None beside the quick pipeline, which then is all there is.
        pipeline: the worker's, in this process.
    """

    reconstructor: Any
    pipeline: Any

    @classmethod
    def load(cls, options: ServerOptions) -> Library:
        """On as many processor threads as a worker takes."""
        if options.pipeline:
            module, _, function = options.pipeline.partition(":")
            return cls(None, getattr(importlib.import_module(module), function)(PipelineConfig()))
        import torch

        from focus_backend.reconstruction.reconstructor import Reconstructor
        from focus_backend.serving.pipeline import load_pipeline

        config = PipelineConfig.model_validate(options.configuration(Path())["pipeline"])
        torch.set_num_threads(config.threads)
        pipeline = load_pipeline(config)
        pipeline.warm_up()
        reconstructor = Reconstructor.load(method=config.method, weights=config.weights, device=config.device)
        return cls(reconstructor, pipeline)

    def reconstruct(self, photo: bytes, *, with_files: bool = False) -> list[Any]:
        """A photo's faces with the library alone, from the bytes of its file; on request as the files of a local run, too."""
        if self.reconstructor is None:
            self.run(photo, [])
            return []
        from focus_backend.export.bundle import write_reconstruction
        from focus_backend.photo import read_photo

        results = self.reconstructor.reconstruct(read_photo(photo))
        if with_files:
            with tempfile.TemporaryDirectory() as folder:
                for result in results:
                    write_reconstruction(result, Path(folder) / str(result.face_index))
        return results

    def run(self, photo: bytes, parts: list[str]) -> int:
        """The same through the worker's pipeline, with its arrays; bytes of them.

        Raises:
            Exception: what the pipeline delivered instead of a result.
        """
        from focus_backend.serving.config import LimitsConfig
        from focus_backend.serving.pipeline import Job
        from focus_backend.serving.wire import Array, Reconstruct

        job = Job(Reconstruct(parts=parts, progress=False), {"photo": Array.of(photo)}, LimitsConfig.model_validate({}).published())
        delivered: list[Any] = []
        self.pipeline.run([job], [_watch], lambda _, body, arrays: delivered.append((body, arrays)))
        body, arrays = delivered[0]
        if isinstance(body, Exception):
            raise body
        return sum(memoryview(array.data).nbytes for array in arrays.values())


def _watch(stage: str, fraction: float, preview: Callable[[], Any] | None = None) -> None:
    """Nobody looks on."""


def photos_per_second(options: ServerOptions, photo: bytes, seconds: float, processes: int) -> float:
    """Of the library in so many processes at once, after each has loaded and done one photo.

    Raises:
        SystemExit: a process failed.
    """
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(processes), context.Queue()
    running = [context.Process(target=_measure, args=(options, photo, seconds, barrier, rates), daemon=True) for _ in range(processes)]
    for process in running:
        process.start()
    try:
        return sum(rates.get(timeout=LOADING_SECONDS + 3 * seconds) for _ in running)
    except queue.Empty:
        raise SystemExit("the library could not be measured; a process of it failed") from None
    finally:
        for process in running:
            process.terminate()
            process.join()


def _measure(options: ServerOptions, photo: bytes, seconds: float, barrier: Barrier, rates: Any) -> None:
    library = Library.load(options)
    library.reconstruct(photo)
    barrier.wait(LOADING_SECONDS)
    started, count = time.monotonic(), 0
    while time.monotonic() < started + seconds:
        library.reconstruct(photo)
        count += 1
    rates.put(count / (time.monotonic() - started))
