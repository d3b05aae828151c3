"""Where the faces of a run come from: photos that were prepared, or people that do not exist."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from focus_backend.errors import ConfigError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.mirror import FaceMirror
from train.config import TrainingConfig
from train.data.batch import FaceSource
from train.data.people import PeopleWorkers, detected, draw_people
from train.data.pool import PooledFaces
from train.misfit import RenderedFaces

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Seeds of what is looked at, apart from what is learnt from.
VALIDATION_SEED = 7_777_777
MISFIT_SEED = 3_333_333
# Of what a pool's folder holds.
_POOL_FORMAT = 3


@dataclass
class Sources:
    """One process's share of the faces.

    Attributes:
        config: of the run.
        run: its folder, which keeps the pool.
        fabric: devices and processes.
        model: face model on the training device.
        frame: of the crops.
    """

    config: TrainingConfig
    run: Path
    fabric: Fabric
    model: FaceModel
    frame: CropFrame

    def check(self, stages: Sequence[str]) -> None:
        """Whether there are faces for these stages; nothing is drawn for a pool.

        Raises:
            FocusError: as for `training`.
        """
        if self.config.data.pool and self.config.data.mirror:
            _ = self._mirror
        for stage in stages:
            _ = self._photos if self._is_of_photos(stage) else self._people
            _ = self.validation(stage)

    def training(self, stage: str) -> FaceSource:
        """Faces that a stage learns from. Where theta has to be known, they are people that do not exist, whatever the data.

        Raises:
            ConfigError: the folder is not prepared for this run, or has no masks though they are wanted.
            OutputError: the pool cannot be written.
        """
        if stage == "misfit":
            return self.rendered(MISFIT_SEED)
        return self._photos if self._is_of_photos(stage) else self._pool if self.config.data.pool else self._people

    def validation(self, stage: str) -> FaceSource:
        """Faces to look at in a stage, the same ones every time."""
        if stage == "misfit":
            return self.rendered(VALIDATION_SEED)
        return self._shown_photos if self._is_of_photos(stage) else self._shown_people

    def _is_of_photos(self, stage: str) -> bool:
        return self.config.data.kind == "prepared" and stage not in ("warmstart", "misfit")

    @cached_property
    def _people(self) -> FaceSource:
        return self.synthetic(self.config.seed)

    @cached_property
    def _shown_people(self) -> FaceSource:
        return self.synthetic(VALIDATION_SEED)

    @cached_property
    def _photos(self) -> FaceSource:
        return self._prepared(self.config.data.split, self.config.seed, is_augmented=True)

    @cached_property
    def _shown_photos(self) -> FaceSource:
        return self._prepared(self.config.data.validation_split, VALIDATION_SEED, is_augmented=False)

    @cached_property
    def _pool(self) -> FaceSource:
        config, count, rank = self.config, self.config.data.pool, self.fabric.global_rank
        world, model = self.fabric.world_size, self.model.metadata.get("sha256", "")
        looked_at = f"{config.networks.encoder.landmarks} {config.networks.encoder.landmark_enlargement}"
        key = f"{_POOL_FORMAT} {config.seed} {config.image_size} {model} {config.synthetic.model_dump_json()} {count} {world} {looked_at}"
        folder, report = self.run / f"faces-{rank}", self._counter(count)
        workers = PeopleWorkers(config, rank, world) if config.data.workers > 1 else None
        device = self.fabric.device
        return PooledFaces(
            self._people,
            count,
            seed=config.seed,
            rank=rank,
            folder=folder,
            key=key,
            device=device,
            workers=workers,
            mirror=self._mirror if config.data.mirror else None,
            report=report,
        )

    @cached_property
    def _mirror(self) -> FaceMirror:
        """How the model's faces are mirrored.

        Raises:
            ConfigError: its sides are not alike.
        """
        mirror = FaceMirror.of(self.model)
        if mirror is None:
            raise ConfigError(f"data.mirror cannot be used with {self.model.name!r}, whose sides are not alike", "set data.mirror=false")
        return mirror

    def masked(self) -> FaceSource:
        """Faces whose masks are known, the same ones for every process: skin colour is learnt from them."""
        if self.config.data.kind == "prepared":
            return self._prepared(self.config.data.split, self.config.seed, is_augmented=False, needs_mask=True, is_shared=True)
        return self.synthetic(self.config.seed, is_shared=True)

    def synthetic(self, seed: int, is_shared: bool = False) -> FaceSource:
        """People that do not exist, through a detector where one is configured; `is_shared` for the same ones in every process."""
        place = (0, 1) if is_shared else (self.fabric.global_rank, self.fabric.world_size)
        return detected(self.config, self.model, draw_people(self.config, self.model, seed, *place))

    def rendered(self, seed: int) -> FaceSource:
        """Faces as the autoencoder itself draws them, for the misfit prior."""
        place = self.fabric.global_rank, self.fabric.world_size
        return detected(self.config, self.model, RenderedFaces(draw_people(self.config, self.model, seed, *place)))

    def _prepared(self, split: str, seed: int, *, is_augmented: bool, needs_mask: bool = False, is_shared: bool = False) -> FaceSource:
        from train.data.prepared import PreparedFaces

        data, fabric = self.config.data, self.fabric
        assert data.path is not None
        return PreparedFaces(
            data.path,
            self.frame,
            split=split,
            seed=seed,
            rank=0 if is_shared else fabric.global_rank,
            world=1 if is_shared else fabric.world_size,
            augment=data.augment if is_augmented else None,
            device=fabric.device,
            needs_mask=needs_mask or self.config.mask == "truth",
        )

    def _counter(self, count: int) -> Callable[[int], None]:
        """Says every tenth how far the pool is."""
        said = [0]

        def report(done: int) -> None:
            tenth = 10 * done // count
            if tenth > said[0] and self.fabric.is_global_zero:
                said[0] = tenth
                print(f"drawing synthetic faces, once for all stages: {done}/{count}", file=sys.stderr, flush=True)

        return report
