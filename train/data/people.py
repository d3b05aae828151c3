"""The synthetic people of a configuration: drawn, seen by a detector where one is configured, in this process or in several."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from focus_backend.errors import TrainingError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.frame import CropFrame
from train.config import TrainingConfig
from train.data.batch import FaceSource, pack
from train.data.processes import PATIENCE, begin_worker, interrupts_held, process_pool, stoppable
from train.data.synthetic import SyntheticFaces

Packed = dict[str, np.ndarray]


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

    def batches(self, steps: Sequence[int], size: int) -> Iterator[dict[str, Tensor]]:
        """The batches of `size` people of some steps, packed.

        Raises:
            KeyboardInterrupt: on Ctrl-C or a polite kill.
            TrainingError: a process was ended from outside.
        """
        draw = partial(_draw, self.config.model_dump_json(), self.rank, self.world, size)
        workers, waiting, drawn = self.config.data.workers, iter(steps), deque[Future[Packed]]()
        with stoppable() as check_stop, process_pool(workers, begin_worker) as pool:
            for _ in steps:
                with interrupts_held():
                    # A few ahead, so that none of them waits for this process.
                    drawn.extend(pool.submit(draw, step) for step in itertools.islice(waiting, 2 * workers - len(drawn)))
                check_stop()
                while not wait([drawn[0]], PATIENCE).done:
                    check_stop()
                try:
                    packed = drawn.popleft().result()
                except BrokenProcessPool as error:
                    check_stop()
                    raise TrainingError("a process that draws faces was ended", "lower data.workers if memory is short") from error
                yield {name: torch.from_numpy(value) for name, value in packed.items()}


def _draw(config: str, rank: int, world: int, size: int, step: int) -> Packed:
    return {name: value.numpy() for name, value in pack(_people(config, rank, world).batch(step, size)).items()}


@lru_cache(maxsize=1)
def _people(document: str, rank: int, world: int) -> FaceSource:
    """Kept from batch to batch of a worker."""
    config = TrainingConfig.model_validate_json(document)
    model = load_model(config.model)
    return detected(config, model, draw_people(config, model, config.seed, rank, world))
