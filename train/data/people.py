"""The synthetic people of a configuration: drawn, seen by a detector where one is configured, in this process or in several."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.frame import CropFrame
from train.config import TrainingConfig
from train.data.batch import FaceSource, pack
from train.data.synthetic import SyntheticFaces


def draw_people(config: TrainingConfig, model: FaceModel, seed: int, rank: int, world: int) -> SyntheticFaces:
    """People as they are drawn, on the model's device, in crops as large as the encoder's detector wants them.

    Raises:
        ConfigError: the folder of photos that the configuration names has none.
    """
    frame = CropFrame.of(model, config.image_size * _enlargement(config))
    return SyntheticFaces(model, frame, config.synthetic, seed=seed, rank=rank, world=world, device=model.device)


def detected(config: TrainingConfig, model: FaceModel, drawn: FaceSource) -> FaceSource:
    """Drawn faces as they reach the networks."""
    encoder = config.networks.encoder
    if encoder.landmarks == "none":
        return drawn
    from train.data.detected import DetectedFaces

    return DetectedFaces(drawn, model, encoder.landmarks, _enlargement(config))


def _enlargement(config: TrainingConfig) -> int:
    encoder = config.networks.encoder
    return 1 if encoder.landmarks == "none" else encoder.landmark_enlargement


@dataclass(frozen=True)
class PeopleWorkers:
    """Draws people in several processes on the CPU; what a batch shows is the same as in one.

    Attributes:
        config: of the run.
        rank, world: of the process that asks.
    """

    config: TrainingConfig
    rank: int
    world: int

    def batches(self, count: int, size: int) -> Iterator[dict[str, Tensor]]:
        """The first `count` batches of `size` people, packed."""
        draw = partial(_draw, self.config.model_dump_json(), self.rank, self.world, size)
        # Forked copies of a process with threads may hang.
        with ProcessPoolExecutor(self.config.data.workers, multiprocessing.get_context("spawn")) as pool:
            for packed in pool.map(draw, range(count)):
                yield {name: torch.from_numpy(value) for name, value in packed.items()}


def _draw(config: str, rank: int, world: int, size: int, step: int) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    return {name: value.numpy() for name, value in pack(_people(config, rank, world).batch(step, size)).items()}


@lru_cache(maxsize=1)
def _people(document: str, rank: int, world: int) -> FaceSource:
    """Kept from batch to batch of a worker."""
    config = TrainingConfig.model_validate_json(document)
    model = load_model(config.model)
    return detected(config, model, draw_people(config, model, config.seed, rank, world))
