"""One scene a face: background, head, what is in front of it, and the mask of what of the face is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.decoder import project_landmarks
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.theta import Theta
from focus_backend.rendering import Camera, Rendering, render
from train.data.covers import draw_cover
from train.data.degrade import degrade
from train.data.draws import Draws
from train.data.glasses import draw_glasses
from train.data.hair import Hair, beard_heights, draw_hair, hanging_capsules, lay_beard, lay_hair
from train.data.layers import Layer, Picture, at_pixels, lay_over, lit, round_shading
from train.data.occluders import FaceView, choose, draw_capsule_things
from train.data.photo_pieces import draw_pieces, load_pieces
from train.data.self_shadow import SelfShadow
from train.data.shapes import Capsules, Grid, capsule_distance
from train.data.strands import lay_bristles, lay_fringe
from train.data.synthetic_config import SyntheticConfig
from train.data.textures import draw_background, draw_pattern, noise_field

# Of what covers a pixel; from here on it is no face.
_HIDDEN_FROM = 0.4
_NOISES = 3


@dataclass(frozen=True)
class Studio:
    """What all scenes share.

    Attributes:
        model: on the device where scenes are drawn.
        frame: of the crops.
        config: shares and ranges.
        texture: mean albedo of every texel, linear RGB, then the offset of one standard deviation of each component.
        skin: the same of the mean over the texels.
        photos: what pieces of pictures are cut from.
        self_shadow: of the head.
    """

    model: FaceModel
    frame: CropFrame
    config: SyntheticConfig
    texture: Float[Tensor, "modes values"]
    skin: Float[Tensor, "modes 3"]
    photos: UInt8[Tensor, "n 3 side side"] | None
    self_shadow: SelfShadow

    @classmethod
    def of(cls, model: FaceModel, frame: CropFrame, config: SyntheticConfig) -> Studio:
        """The studio of a model.

        Raises:
            ConfigError: the folder of photos that `config` names has none.
        """
        stored = torch.cat([model.albedo_mean[None], model.albedo_basis])
        # With all texels in place once, a texture is one matrix product.
        texture = stored.new_zeros(len(stored), model.texture_size**2, 3).index_copy(1, model.texels, stored)
        photos = None if config.photos is None else load_pieces(config.photos, model.device)
        return cls(model, frame, config, texture.flatten(1), stored.mean(1), photos, SelfShadow.of(model))

    def albedo(self, coefficients: Float[Tensor, "b albedo"]) -> Float[Tensor, "b rows rows 3"]:
        """Albedo textures, linear RGB, as `FaceModel.decode_albedo` gives them."""
        size = self.model.texture_size
        return torch.addmm(self.texture[0], coefficients, self.texture[1:]).view(-1, size, size, 3)


@dataclass(frozen=True)
class Scene:
    """Drawn faces.

    Attributes:
        image: sRGB in [0, 1].
        mask: 1 where the face is seen.
        inside: pixels that lie in the photo; the others are black.
        landmarks: the 68 points, crop pixels.
    """

    image: Float[Tensor, "b 3 h w"]
    mask: Float[Tensor, "b h w"]
    inside: Bool[Tensor, "b h w"]
    landmarks: Float[Tensor, "b 68 2"]


def draw_scene(studio: Studio, theta: Theta, camera: Camera, draws: Draws) -> Scene:
    """Faces with all that is around them, through cameras that may differ a little from the crop's."""
    model, config, count, size = studio.model, studio.config, len(theta), studio.frame.size
    grid, noise = Grid.of(size, draws.device), noise_field(draws, count, _NOISES, size, (6, 14, 32))
    # Strands of hair bend slowly.
    bend = noise_field(draws, count, 2, size, (3, 5))
    vertices = model.decode_shape(theta.shape, theta.expression)
    landmarks = project_landmarks(model, vertices, camera)
    skin = torch.addmm(studio.skin[0], theta.albedo, studio.skin[1:]).clamp(0.01, 1)
    depth = -(camera.rotation @ studio.frame.centre + camera.translation)[:, 2]
    view = FaceView(landmarks, camera.focal_length / depth, theta.lighting, skin)
    hair = draw_hair(draws, count, config.hair_share, config.beard_share)
    background = _mix_photos(draws, draw_background(draws, count, grid), studio)
    behind = _lay_hanging_hair(draws, Picture(background, torch.ones_like(background[:, 0])), hair, view, camera, grid, bend[:, 0])
    behind = lay_bristles(draws, behind, hair, view, camera, grid, bend[:, 1], draws.chance(config.bristle_share, count))
    around = behind.image.permute(0, 2, 3, 1).contiguous()
    head = render(model, vertices, studio.albedo(theta.albedo), theta.lighting, camera, region="head", background=around)
    is_face = _face_region(model, head.triangle_ids)
    on_vertices = [beard_heights(model, hair), studio.self_shadow.shade(theta.lighting, camera.rotation)]
    beard, light = at_pixels(model.triangles, head, torch.stack(on_vertices, -1)).unbind(-1)
    image = _photograph_skin(draws, head, light, _light_direction(theta.lighting), grid, noise[:, 1], config).clamp(0, 1)
    grain = 0.5 * noise[:, 2] + draws.normal(count, size, size)
    picture = lay_beard(head, beard, theta.lighting, hair, Picture(image, torch.ones_like(image[:, 0])), grain)
    picture = _lay_clothes(draws, picture, is_face, view, camera, grid, noise[:, 2], config)
    picture = lay_hair(model, vertices, theta.lighting, camera, hair, picture, bend[:, 1], noise[:, 2])
    picture = lay_fringe(draws, picture, hair, view, head.mask, grid, bend[:, 0], draws.chance(config.fringe_share, count))
    # Another face of the batch, mirrored, or a piece of a photo.
    others = _mix_photos(draws, picture.image.roll(1, 0).flip(3), studio)
    points = model.landmarks68.on(vertices, model.triangles)
    picture = _lay_things(draws, picture, hair, view, camera, points, grid, noise, others, config)
    image = degrade(picture.image.clamp(0, 1), config, draws)
    inside = _photo_border(draws, count, grid, config.border_share)
    mask = is_face & (picture.visible > 1 - _HIDDEN_FROM) & inside
    return Scene(image * inside[:, None], mask.float(), inside, landmarks)


def _photo_border(draws: Draws, count: int, grid: Grid, share: float) -> Bool[Tensor, "b h w"]:
    """Pixels that lie in the photo, where the crop reaches over one or two of its sides; the photo may be turned."""
    size = grid.x.shape[-1]
    angle = draws.normal(count, 1, 1, scale=0.15)
    x, y = grid.x - size / 2, grid.y - size / 2
    right, down = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    # A third of the sides, up to halfway to the middle.
    has_side = draws.chance(0.35, count, 4) & draws.chance(share, count, 1)
    reach = torch.where(has_side, size * draws.uniform(count, 4, low=0.25, high=0.5), 2.0 * size)
    left, top, far_right, bottom = reach[..., None, None].unbind(1)
    return (right > -left) & (right < far_right) & (down > -top) & (down < bottom)


def _mix_photos(draws: Draws, image: Float[Tensor, "b 3 h w"], studio: Studio) -> Float[Tensor, "b 3 h w"]:
    """The pictures, a share of them exchanged for pieces of photos where there are any."""
    if studio.photos is None:
        return image
    count, size = len(image), image.shape[-1]
    return choose(draws.chance(studio.config.photo_share, count), draw_pieces(studio.photos, draws, count, size), image)


def _lay_things(
    draws: Draws,
    picture: Picture,
    hair: Hair,
    view: FaceView,
    camera: Camera,
    points: Float[Tensor, "b 68 3"],
    grid: Grid,
    noise: Float[Tensor, "b n h w"],
    others: Float[Tensor, "b 3 h w"],
    config: SyntheticConfig,
) -> Picture:
    """The picture with everything that is no part of the person."""
    count = len(view.unit)
    light, reach = _across_picture(view.lighting), view.unit * draws.uniform(count, low=3, high=12)
    is_occluded = draws.chance(config.occluded_share, count)
    has_hand, has_cover = (is_occluded & draws.chance(share, count) for share in (config.hand_share, config.cover_share))
    for layer in draw_glasses(draws, view, camera, points, grid, draws.chance(config.glasses_share, count)):
        picture = lay_over(picture, layer, light, reach)
    cover = draw_cover(draws, view, grid, noise[:, 0], hair.colour, others, has_cover)
    picture = lay_over(picture, cover, light, reach)
    thing = draw_capsule_things(draws, view, grid, noise[:, 1], hair.colour, has_hand)
    return lay_over(picture, thing, light, reach)


def _photograph_skin(
    draws: Draws,
    head: Rendering,
    light: Float[Tensor, "b h w"],
    lamp: Float[Tensor, "b 3"],
    grid: Grid,
    noise: Float[Tensor, "b h w"],
    config: SyntheticConfig,
) -> Float[Tensor, "b 3 h w"]:
    """The rendered picture with shine, edges of shadows and the head's own shadow on itself.

    Args:
        draws: of this batch.
        head: the rendered head.
        light: share of the light that reaches each pixel.
        lamp: where most light comes from, unit, camera space.
        grid: pixels.
        noise: uneven skin and shadows.
        config: shares.
    """
    count, size = len(noise), noise.shape[-1]
    angle, place = draws.uniform(count, 1, 1, high=2 * math.pi), draws.uniform(count, 1, 1, low=-0.25, high=0.25) * size
    across = (grid.x - size / 2) * angle.cos() + (grid.y - size / 2) * angle.sin() - place + 0.04 * size * noise
    soft = size * draws.log_uniform(count, 1, 1, low=0.01, high=0.15)
    has_edge = draws.chance(config.cast_shadow_share, count)[:, None, None]
    edge = draws.uniform(count, 1, 1, high=0.6) * has_edge * torch.sigmoid(across / soft)
    # Light that skin throws back fills the deepest shadows, mostly red.
    strength = draws.uniform(count, 1, 1, low=0.3, high=0.95) * draws.chance(config.self_shadow_share, count)[:, None, None]
    lost = ((1 - light).clamp(0, 1) * strength)[:, None] * draws.constant(0.92, 1.0, 1.02).view(3, 1, 1)
    # Of the linear light; roots, for the picture is close to the root of it.
    left = (1 - lost).clamp(min=0.02).sqrt() * (1 - edge)[:, None]
    image = head.image.permute(0, 3, 1, 2).clamp(min=0)
    gloss = _gloss(draws, head.normals, lamp, noise) * light * draws.chance(config.gloss_share, count)[:, None, None]
    shiny = ((image * left).square() + gloss[:, None]).sqrt()
    return torch.where(head.mask[:, None], shiny, image)


def _gloss(
    draws: Draws, normals: Float[Tensor, "b h w 3"], lamp: Float[Tensor, "b 3"], noise: Float[Tensor, "b h w"]
) -> Float[Tensor, "b h w"]:
    """Linear light that skin mirrors: a broad sheen, in it a small hot spot."""
    count = len(noise)
    lamp = torch.nn.functional.normalize(lamp + draws.normal(count, 3, scale=0.25) + draws.constant(0.0, 0.1, 0.3), dim=-1)
    half = torch.nn.functional.normalize(lamp + draws.constant(0.0, 0.0, 1.0), dim=-1)
    cosine = (normals.flatten(1, 2) @ half[..., None]).view_as(noise).clamp(0, 1)
    sheen = cosine ** draws.log_uniform(count, 1, 1, low=5, high=20)
    spot = sheen.square().square()
    broad, hot = draws.log_uniform(2, count, 1, 1, low=0.015, high=0.22).unbind(0)
    return sheen * (broad + hot * spot) * (1 + 0.2 * noise).clamp(min=0)


def _lay_hanging_hair(
    draws: Draws, picture: Picture, hair: Hair, view: FaceView, camera: Camera, grid: Grid, noise: Float[Tensor, "b h w"]
) -> Picture:
    """The background with long hair."""
    distance, radius = capsule_distance(grid, hanging_capsules(draws, hair, camera))
    distance = distance + 4 * view.unit[:, None, None] * noise
    shading = round_shading(distance, radius, view.lighting)
    size, angle = noise.shape[-1], 0.15 * draws.normal(len(noise), 1, 1)
    index = 0.8 * (grid.x + angle * grid.y + 0.04 * size * noise + size)
    strands = hair.strands.gather(1, index.long().flatten(1) % hair.strands.shape[1]).view_as(distance)
    colour = lit(hair.colour[..., None, None] * strands[:, None].square(), shading)
    is_there = (hair.is_long & hair.is_there).float()
    return lay_over(picture, Layer(distance, colour, is_there, 0 * is_there), _across_picture(view.lighting), view.unit)


def _lay_clothes(
    draws: Draws,
    picture: Picture,
    is_face: Bool[Tensor, "b h w"],
    view: FaceView,
    camera: Camera,
    grid: Grid,
    noise: Float[Tensor, "b h w"],
    config: SyntheticConfig,
) -> Picture:
    """The picture with shoulders and a collar; the face itself stays in front of them."""
    count = len(view.unit)
    fixed = draws.constant(-65, -215, -75, 65, -215, -75, -65, -215, -75, -190, -270, -90, 65, -215, -75, 190, -270, -90).view(1, 6, 3)
    points = fixed + draws.uniform(count, 1, 3, low=-1, high=1) * draws.constant(0.0, 14.0, 0.0)
    screen = camera.to_screen(camera.to_camera_space(points))[..., :2].unflatten(1, (3, 2))
    radius = (view.unit[:, None] * draws.uniform(count, 1, low=55, high=80)).expand(-1, 3)
    distance, nearest = capsule_distance(grid, Capsules(screen[:, :, 0], screen[:, :, 1], radius, radius))
    fabric = draw_pattern(draws, count, grid, noise).clamp(min=0.01).square()
    # Bare shoulders.
    fabric = choose(draws.chance(0.15, count), view.skin[..., None, None], fabric)
    colour = lit(fabric, round_shading(distance, nearest, view.lighting) * (1 + 0.1 * noise[:, None]))
    distance = torch.where(is_face, 1e3, distance)
    there = draws.chance(config.clothes_share, count).float()
    return lay_over(picture, Layer(distance, colour, there, 0 * there), _across_picture(view.lighting), view.unit)


def _light_direction(lighting: Float[Tensor, "b 9 3"]) -> Float[Tensor, "b 3"]:
    """Where most light comes from: unit, camera space."""
    bands = lighting[:, 1:4].mean(2)
    return bands.roll(1, 1) / bands.norm(dim=1).clamp(min=1e-3)[:, None]


def _across_picture(lighting: Float[Tensor, "b 9 3"]) -> Float[Tensor, "b 2"]:
    """Where most light comes from, across the picture (right, down); short when it comes from the front."""
    direction = _light_direction(lighting)
    return torch.stack([direction[:, 0], -direction[:, 1]], -1)


def _face_region(model: FaceModel, ids: Int[Tensor, "b h w"]) -> Bool[Tensor, "b h w"]:
    """Pixels that show a triangle of the face region."""
    padded = torch.cat([model.triangle_in_face, model.triangle_in_face.new_zeros(1)])
    return padded[ids]
