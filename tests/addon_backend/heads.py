"""Pipelines for tests of the Blender add-on: they follow the photo's orders (`serving/pipelines.py`), then make heads of a small model."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from addon_backend.orders import PARTS
from conftest import make_reconstruction, make_tiny_model
from focus_backend.serving import wire
from focus_backend.serving.config import PipelineConfig
from focus_backend.serving.parts import ModelParts, arrays_of
from focus_backend.serving.pipeline import Job, PipelineInfo
from serving.pipelines import QuickPipeline


class HeadPipeline(QuickPipeline):
    """Follows the photo's orders, then answers with heads of a small model, in the form of the real parts."""

    def __init__(self) -> None:
        self._model = make_tiny_model(shapes=12)
        self._model_info = self._info(str(self._model.metadata["sha256"]))
        self.info = PipelineInfo(models=[self._model_info], methods=["fit", "network"], parts=PARTS, device="cpu")

    def run(
        self,
        jobs: Sequence[Job],
        watches: Sequence[Callable[..., None]],
        deliver: Callable[[int, wire.Result | Exception, dict[str, wire.Array]], None],
    ) -> None:
        """Each after the other."""

        def deliver_heads(index: int, outcome: wire.Result | Exception, arrays: dict[str, wire.Array]) -> None:
            if isinstance(outcome, Exception):
                deliver(index, outcome, arrays)
            else:
                deliver(index, *self._heads(jobs[index], len(outcome.faces)))

        super().run(jobs, watches, deliver_heads)

    def _heads(self, job: Job, faces: int) -> tuple[wire.Result, dict[str, wire.Array]]:
        made = [
            dataclasses.replace(make_reconstruction(self._model, job.request.name, seed=face), face_index=face, photo_sha256="5" * 64)
            for face in range(faces)
        ]
        found = [wire.Face(index, [], face.to_document()) for index, face in enumerate(made)]
        arrays = arrays_of(made, job.request.parts, ModelParts(self._model), lambda: None)
        return wire.Result(found, self._model_info, list(job.request.parts), 0.1), arrays

    def _info(self, sha256: str) -> wire.ModelInfo:
        return wire.ModelInfo("tiny", sha256, len(self._model.mean_shape), list(self._model.expression_names))


def load_heads(config: PipelineConfig) -> HeadPipeline:
    """The pipeline."""
    return HeadPipeline()


def load_heads_late(config: PipelineConfig) -> HeadPipeline:
    """The pipeline, as soon as the file is there that stands in the place of the weights."""
    assert config.weights is not None
    while not Path(config.weights).exists():
        time.sleep(0.02)
    return HeadPipeline()
