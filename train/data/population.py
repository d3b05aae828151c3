"""Random people as photographed: identity, expression, light and pose in the crop's fixed camera."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.frame import DISTANCE, FOCAL_LENGTH_IN_HALF_SIZES, CropFrame, five_of_68
from focus_backend.rendering import Camera, axis_angle_from_rotation, rotation_from_axis_angle, spherical_harmonics
from focus_backend.rendering.camera import cross_matrix
from focus_backend.rendering.lighting import SH_BAND0
from train.data.draws import Draws
from train.data.self_shadow import LIGHT_LOBE

_LIGHTS = 3
# Metres between camera and face in the middle of all photos.
_USUAL_DISTANCE = 0.8
# Beginnings of the names of expressions that a face in a photo often has.
_USUAL = ("mouthSmile", "jawOpen", "eyeBlink")
# Jaw and gaze move to one side; everything else is mostly done with both.
_ONE_SIDED = ("jaw", "eyeLook", "mouthLeft", "mouthRight")


class Habits(NamedTuple):
    """How expressions go together.

    Attributes:
        twin: index of the expression that mirrors each one, itself where none does.
        is_paired: 1 where both sides mostly act together.
        usual: full activation of each group of `_USUAL`.
    """

    twin: Int[Tensor, "expression"]
    is_paired: Float[Tensor, "expression"]
    usual: Float[Tensor, "groups expression"]


def expression_habits(model: FaceModel) -> Habits:
    """The habits of a model's expressions, by their names."""
    names = {name: index for index, name in enumerate(model.expression_names)}
    twins, is_paired = [], []
    for index, name in enumerate(model.expression_names):
        mirrored = name.replace("Left", "Right") if "Left" in name else name.replace("Right", "Left")
        twins.append(names.get(mirrored, index))
        is_paired.append(float(twins[-1] != index and not name.startswith(_ONE_SIDED)))
    usual = [[float(name.startswith(group)) for name in model.expression_names] for group in _USUAL]
    return Habits(*(torch.tensor(values, device=model.device) for values in (twins, is_paired, usual)))


def draw_expression(
    model: FaceModel,
    habits: Habits,
    draws: Draws,
    count: int,
    neutral_share: float,
    usual_share: float,
) -> Float[Tensor, "count expression"]:
    """A few expressions at a time, up to their full extent, both sides of the face mostly alike; standard deviations."""
    size = model.expression_size
    at_once = draws.integers(7, count, 1) * ~draws.chance(neutral_share, count, 1)
    place = draws.uniform(count, size).argsort(1).argsort(1)
    strength = draws.uniform(count, size, high=0.8) * (place < at_once)
    twin, is_paired, usual_of = habits
    mirrored = strength[:, twin] * is_paired * draws.uniform(count, size, low=0.7, high=1.2)
    calm = draws.uniform(count, 1, low=0.4, high=1.0)
    activation = calm * torch.maximum(strength, mirrored)
    # What people mostly do before a camera.
    usual = draws.uniform(count, len(_USUAL)) * draws.chance(usual_share, count, len(_USUAL))
    return torch.maximum(activation, usual @ usual_of).clamp(0, 1) / model.expression_scale


def draw_lighting(draws: Draws, count: int, hard_share: float) -> Float[Tensor, "count 9 3"]:
    """An ambient level and one to three soft lights, or one strong light from the side, at all exposures of snapshots; camera space."""
    direction = draws.normal(count, _LIGHTS, 3) + draws.constant(0.0, 0.4, 0.8)
    side = draws.normal(count, _LIGHTS, 3, scale=0.4) + draws.constant(0.0, 0.3, 0.15)
    side[..., 0] = side[..., 0] + 2.0 * (draws.integers(2, count, 1) * 2 - 1)
    is_hard = draws.chance(hard_share, count, 1, 1)
    direction = torch.nn.functional.normalize(torch.where(is_hard, side, direction), dim=-1)
    # Some rooms are lit in colours.
    colourful = torch.where(draws.chance(0.15, count, 1, 1), 0.28, 0.08)
    tint = 1 + draws.normal(count, _LIGHTS, 3) * colourful + _warmth(draws, count)[:, None]
    power = draws.uniform(count, _LIGHTS, 1, low=0.1, high=0.8) * torch.where(is_hard, 1.6, 1.0)
    is_on = torch.arange(_LIGHTS, device=draws.device)[:, None] < 1 + draws.integers(_LIGHTS, count, 1, 1)
    lobe = draws.constant(*LIGHT_LOBE)
    lights = ((lobe * spherical_harmonics(direction))[..., None] * (power * is_on * tint.clamp(0.5, 1.5))[..., None, :]).sum(1)
    ambient = draws.uniform(count, 1, low=0.25, high=0.75) * torch.where(is_hard[:, 0], 0.4, 1.0)
    base = torch.zeros_like(lights)
    base[:, 0] = ambient * (1 + 0.5 * _warmth(draws, count)) / SH_BAND0
    return _expose(base + lights, draws)


def _warmth(draws: Draws, count: int) -> Float[Tensor, "count 3"]:
    """Colour of daylight to lamps: red and blue move against each other."""
    return draws.normal(count, 1, scale=0.12) * draws.constant(1.0, 0.0, -1.0)


def _expose(lighting: Float[Tensor, "count 9 3"], draws: Draws) -> Float[Tensor, "count 9 3"]:
    """Scaled as cameras do, so that the front of the face gets about 1, with a wide rest of dark and bright photos."""
    front = draws.constant(0.0, 0.0, 1.0, 0.6, 0.0, 0.8, -0.6, 0.0, 0.8, 0.0, 0.6, 0.8).view(4, 3)
    seen = (spherical_harmonics(front) @ lighting).mean((1, 2)).clamp(min=0.15)
    level = draws.normal(len(lighting), scale=0.4).clamp(math.log(0.25), math.log(2.1)).exp()
    return lighting * (level / seen)[:, None, None]


class PlacementErrors(NamedTuple):
    """What is wrong with the crops that detected points give.

    Attributes:
        scale: factor of the distance.
        shift: across the picture, complex (right, up), in units of the distance.
        roll: radians.
    """

    scale: Float[Tensor, "b"]
    shift: Complex[Tensor, "b"]
    roll: Float[Tensor, "b"]


def draw_placement_errors(draws: Draws, count: int, scale: float, shift: float, roll: float) -> PlacementErrors:
    """Normal errors of the standard deviations `scale` (share of the size), `shift` (share of the crop's side), `roll` (degrees)."""
    side = 2 / FOCAL_LENGTH_IN_HALF_SIZES
    across = side * draws.normal(2, count, scale=shift)
    factor = (1 + draws.normal(count, scale=scale)).clamp(0.8, 1.25)
    return PlacementErrors(factor, torch.complex(across[0], across[1]), draws.normal(count, scale=roll).deg2rad())


def draw_rotation(draws: Draws, count: int, wide_share: float, largest_yaw: float) -> Float[Tensor, "count 3 3"]:
    """Mostly frontal heads and a share turned evenly up to `largest_yaw` degrees; without roll, which crops take out."""
    wide = draws.uniform(count, low=-largest_yaw, high=largest_yaw)
    yaw = torch.where(draws.chance(wide_share, count), wide, draws.normal(count, scale=15.0).clamp(-largest_yaw, largest_yaw))
    pitch = draws.normal(count, scale=9.0).clamp(-35, 30)
    axes = torch.diag_embed(torch.stack([pitch, yaw], -1).deg2rad())
    axes = torch.nn.functional.pad(axes, (0, 1))
    return rotation_from_axis_angle(axes[:, 0]) @ rotation_from_axis_angle(axes[:, 1])


def draw_distance(draws: Draws, count: int, spread: float, close_share: float) -> Float[Tensor, "count"]:
    """Distances of cameras in units of the crop's: log-normal from arm's length to portraits, and a share as close as a phone may come."""
    usual = (math.log(_USUAL_DISTANCE) * (spread > 0) + draws.normal(count, scale=spread)).clamp(math.log(0.3), math.log(3.0)).exp()
    return torch.where(draws.chance(close_share, count), draws.log_uniform(count, low=0.15, high=0.4), usual)


def place_in_crop(
    frame: CropFrame,
    rotation: Float[Tensor, "b 3 3"],
    landmarks: Float[Tensor, "b 68 3"],
    errors: PlacementErrors,
    distance: Float[Tensor, "b"] | None = None,
) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 3"]]:
    """Rotation, and translation in mm, that turned faces have in the crop which their five points would have been cut to.

    The scaled orthographic view of the mean face in their pose that fits their points best gives roll, scale and place in closed form, as
    `CropFrame.placement` finds them for photos whose pose it has to search.

    Args:
        frame: the crop's camera and the mean face's points.
        rotation: model to camera space.
        landmarks: the 68 points of each face, model space, mm.
        errors: of the detector that crops are cut by.
        distance: of the camera that takes the photo, in units of the crop's; 1 without.
    """
    turned = (five_of_68(landmarks) - frame.centre) @ rotation.mT
    away = DISTANCE if distance is None else DISTANCE * distance[:, None]
    seen = torch.complex(turned[..., 0], turned[..., 1]) * (away / (away - turned[..., 2]))
    points = (frame.five_points - frame.centre) @ rotation.mT
    flat = torch.complex(points[..., 0], points[..., 1])
    centred = flat - flat.mean(1, keepdim=True)
    factor = (centred.conj() * seen).sum(1) / centred.abs().square().sum(1)
    place = seen.mean(1) - factor * flat.mean(1)
    # A face that looks small is brought nearer.
    size = factor.abs() * errors.scale
    across = DISTANCE * errors.shift - place / factor * size
    roll = errors.roll - factor.angle()
    zero = torch.zeros_like(roll)
    turn = rotation_from_axis_angle(torch.stack([zero, zero, roll], -1))
    across = across * torch.complex(errors.roll.cos(), errors.roll.sin())
    middle = torch.stack([across.real, across.imag, -DISTANCE * size], -1)
    rotation = turn @ rotation
    return rotation, middle - (rotation @ frame.centre)


def from_distance(camera: Camera, centre: Float[Tensor, "3"], factor: Float[Tensor, "b"]) -> Camera:
    """Cameras `factor` times as far from the face's centre (model space, mm), with lenses that keep its size there."""
    depth = (camera.rotation @ centre + camera.translation)[:, 2]
    away = torch.stack([torch.zeros_like(depth), torch.zeros_like(depth), depth * (factor - 1)], -1)
    return dataclasses.replace(camera, translation=camera.translation + away, focal_length=camera.focal_length * factor)


def explain_view(
    frame: CropFrame,
    camera: Camera,
    points: Float[Tensor, "b n 3"],
    rotation: Float[Tensor, "b 3"],
    translation: Float[Tensor, "b 3"],
) -> tuple[Float[Tensor, "b 3"], Float[Tensor, "b 3"]]:
    """The pose in the crop's camera that projects points (model space, mm) nearest to where another camera sees them.

    Two steps of Gauss and Newton from `rotation` (axis times angle) and `translation` (mm), which leave less than a hundredth of a pixel.
    """
    seen = camera.to_screen(camera.to_camera_space(points))[..., :2]
    turn = rotation_from_axis_angle(rotation)
    for _ in range(2):
        turned = points @ turn.mT
        placed = turned + translation[:, None]
        scale = frame.focal_length / -placed[..., 2]
        x, y = placed[..., 0] * scale, placed[..., 1] * scale
        residual = torch.stack([seen[..., 0] - frame.size / 2 - x, frame.size / 2 - seen[..., 1] - y], -1)
        zero, part = torch.zeros_like(scale), scale / frame.focal_length
        by_place = torch.stack([torch.stack([scale, zero, x * part], -1), torch.stack([zero, scale, y * part], -1)], -2)
        # A small turn w moves a point p by w x p.
        jacobian = torch.cat([by_place @ -cross_matrix(turned), by_place], -1).flatten(1, 2)
        normal, right = jacobian.mT @ jacobian, jacobian.mT @ residual.flatten(1)[..., None]
        step = torch.linalg.solve_ex(normal, right).result[..., 0]
        turn = rotation_from_axis_angle(step[:, :3]) @ turn
        translation = translation + step[:, 3:]
    return axis_angle_from_rotation(turn), translation
