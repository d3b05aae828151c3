"""Synthetic training faces: people of the face model's own prior, photographed badly, with exact truth (FOCUS.md, "Networks")."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.theta import Theta
from focus_backend.rendering import Camera, axis_angle_from_rotation
from train.data.batch import FaceBatch
from train.data.draws import Draws
from train.data.population import (
    draw_distance,
    draw_expression,
    draw_lighting,
    draw_placement_errors,
    draw_rotation,
    explain_view,
    expression_habits,
    from_distance,
    place_in_crop,
)
from train.data.scene import Studio, draw_scene
from train.data.synthetic_config import SyntheticConfig

__all__ = ["SyntheticConfig", "SyntheticFaces"]

# Drawn at a time: on a CPU their maps stay in its cache, on a GPU all go at once.
_CPU_FACES, _CPU_PIXELS = 16, 8 * 256**2


class SyntheticFaces:
    """A `FaceSource` without end. What a batch shows depends on the seed, rank, world, step and size alone.

    Theta is in the crop's fixed camera and exact, but for pictures that `perspective_spread` and `close_share` take from nearer or farther
    away: of those it is the pose that brings the 68 points nearest, and the points and masks are exact.

    Args:
        model: whose prior the people are drawn from.
        frame: camera of the crops.
        config: shares and ranges.
        seed: of the run.
        rank: of this process.
        world: number of processes; each sees other faces.
        device: where faces are rendered and stay.

    Raises:
        ConfigError: the folder of photos that `config` names has none.
    """

    def __init__(
        self,
        model: FaceModel,
        frame: CropFrame,
        config: SyntheticConfig | None = None,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.model = model if model.device == self.device else model.to(self.device)
        self.frame = CropFrame(frame.size, frame.centre.to(self.device), frame.five_points.to(self.device))
        self.config = config or SyntheticConfig()
        self._key = (seed, rank, world)
        self._studio = Studio.of(self.model, self.frame, self.config)
        self._habits = expression_habits(self.model)
        self._constants: dict[tuple[float, ...], Tensor] = {}

    @torch.no_grad()
    def batch(self, step: int, size: int) -> FaceBatch:
        """`size` new people."""
        draws = self._draws("people", step, size)
        return self._photograph(*self._people(draws, size), draws)

    @torch.no_grad()
    def theta(self, step: int, size: int) -> Theta:
        """The faces of `batch`, undrawn."""
        draws = self._draws("people", step, size)
        return self._pose(*self._people(draws, size), draws)[0]

    @torch.no_grad()
    def faces_of(self, shape: Float[Tensor, "b shape"], albedo: Float[Tensor, "b albedo"], step: int) -> FaceBatch:
        """New photos of given people (standard deviations), one each."""
        draws = self._draws("given", step, len(shape))
        return self._photograph(shape.to(self.device), albedo.to(self.device), draws)

    def _people(self, draws: Draws, size: int) -> tuple[Float[Tensor, "b shape"], Float[Tensor, "b albedo"]]:
        shape = draws.normal(size, self.model.shape_size, scale=self.config.shape_spread)
        # Not every mole: real skin is plainer than independent draws of all components.
        albedo = self.config.albedo_spread * draws.normal(size, self.model.albedo_size).clamp(-2.5, 2.5)
        tone = draws.uniform(size, 1, low=-1, high=1) * self.config.largest_tone
        return shape, torch.cat([tone, albedo[:, 1:]], 1)

    def _draws(self, kind: str, step: int, size: int) -> Draws:
        return Draws(self.device, *self._key, kind, step, size, constants=self._constants)

    def _photograph(self, shape: Float[Tensor, "b shape"], albedo: Float[Tensor, "b albedo"], draws: Draws) -> FaceBatch:
        theta, camera = self._pose(shape, albedo, draws)
        fitting = max(1, min(_CPU_FACES, _CPU_PIXELS // self.frame.size**2))
        chunk = fitting if self.device.type == "cpu" else len(shape)
        parts = [slice(start, start + chunk) for start in range(0, len(shape), chunk)]
        scenes = [draw_scene(self._studio, theta[part], camera[part], draws) for part in parts]
        image, mask, inside, landmarks = (
            torch.cat([getattr(scene, name) for scene in scenes]) for name in ("image", "mask", "inside", "landmarks")
        )
        return FaceBatch(image, landmarks, torch.ones(len(shape), device=self.device), inside, mask, theta)

    def _pose(self, shape: Float[Tensor, "b shape"], albedo: Float[Tensor, "b albedo"], draws: Draws) -> tuple[Theta, Camera]:
        """Expression, light and pose of some people, as cropping would leave them, and the cameras they are seen by."""
        config, count = self.config, len(shape)
        expression = draw_expression(self.model, self._habits, draws, count, config.neutral_share, config.usual_share)
        lighting = draw_lighting(draws, count, config.hard_light_share)
        turned = draw_rotation(draws, count, config.wide_yaw_share, config.largest_yaw)
        errors = draw_placement_errors(draws, count, config.scale_jitter, config.shift_jitter, config.roll_jitter)
        points = self.model.landmarks68.on(self.model.decode_shape(shape, expression), self.model.triangles)
        distance = draw_distance(draws, count, config.perspective_spread, config.close_share)
        rotation, translation = place_in_crop(self.frame, turned, points, errors, distance)
        axis_angle = axis_angle_from_rotation(rotation)
        camera = self.frame.camera(axis_angle, translation)
        if config.perspective_spread > 0 or config.close_share > 0:
            camera = from_distance(camera, self.frame.centre, distance)
            axis_angle, translation = explain_view(self.frame, camera, points, axis_angle, translation)
        return Theta(shape, expression, albedo, lighting, axis_angle, translation), camera
