from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from focus_backend.errors import ConfigError
from focus_backend.rendering import Camera, ambient_lighting, decode_srgb, encode_srgb, render, rotation_from_axis_angle
from focus_backend.rendering.normals import vertex_normals
from focus_backend.rendering.texture import bake_texture, enlarge_albedo
from focus_backend.rendering.texture_atlas import TextureAtlas

SIZE = 128
WIDTH, HEIGHT = 440, 480
MAGENTA = (255, 0, 255)


def _camera(yaw: float = 0.0) -> Camera:
    rotation = rotation_from_axis_angle(torch.tensor([0.0, yaw, 0.0]))
    # Turned about the head's middle, 90 mm behind the eyes, so that it stays in the picture.
    translation = torch.tensor([0.0, 0.0, -750.0]) + rotation @ torch.tensor([0.0, 0.0, 90.0])
    return Camera(rotation, translation, torch.tensor(1300.0), torch.tensor([WIDTH / 2, HEIGHT / 2]), WIDTH, HEIGHT)


def _lighting() -> torch.Tensor:
    lighting = ambient_lighting(0.9)
    lighting[1:4] += torch.tensor([[0.15, 0.15, 0.12], [0.35, 0.33, 0.3], [0.3, 0.25, 0.2]])
    lighting[6] += 0.08
    return lighting


def _symmetric_texture() -> torch.Tensor:
    """Linear albedo with detail of some texels, the same on both halves of the tiny model's atlas."""
    v, u = torch.meshgrid((torch.arange(SIZE) + 0.5) / SIZE, (torch.arange(SIZE) + 0.5) / SIZE, indexing="ij")
    side = (u - 0.5).abs()
    waves = torch.stack([torch.sin(60 * side + 20 * v), torch.cos(45 * side), torch.sin(50 * v)], -1)
    return torch.tensor([0.5, 0.32, 0.25]) * (1 + 0.3 * waves)


def _photograph(model, texture, camera):
    """Photo of a textured mean head and the mask of its face."""
    rendering = render(model, model.mean_shape[None], texture[None], _lighting()[None], camera, antialiased=False)
    photo = (rendering.image[0].clamp(0, 1) * 255).round().byte().numpy()
    photo[~rendering.mask[0].numpy()] = (30, 200, 60)
    return photo, rendering.mask[0].float().numpy()


def _bake(model, photo, inlier, camera):
    return bake_texture(photo, model, model.mean_shape, camera, _lighting(), inlier, model.decode_albedo(torch.zeros(4)), SIZE)


def _facing(model, camera):
    """Cosine between normal and view of each texel, by plain numpy; -1 outside the face."""
    atlas = TextureAtlas.of(model, SIZE)
    corners = model.triangles.numpy()[atlas.triangles]
    in_camera = camera.to_camera_space(model.mean_shape)
    normals = vertex_normals(in_camera[None], model.triangles)[0].numpy()[corners]
    position = (in_camera.numpy()[corners] * atlas.barycentric[..., None]).sum(2)
    normal = (normals * atlas.barycentric[..., None]).sum(2)
    cosine = -(position * normal).sum(-1) / np.linalg.norm(position, axis=-1).clip(1e-9) / np.linalg.norm(normal, axis=-1).clip(1e-9)
    return np.where((atlas.triangles >= 0) & (atlas.face_weight == 1), cosine, -1)


def _linear(texture):
    return decode_srgb(torch.from_numpy(texture).double() / 255).numpy()


def _relative_error(texture, expected):
    return np.abs(_linear(texture) / expected.double().numpy() - 1).max(-1)


def test_seen_texels_have_the_true_albedo(tiny_model):
    camera, truth = _camera(), _symmetric_texture()
    texture = _bake(tiny_model, *_photograph(tiny_model, truth, camera), camera)
    seen = _facing(tiny_model, camera) > 0.75
    assert seen.sum() > 800
    error = _relative_error(texture, truth)[seen]
    # Bilinear sampling of waves of about a dozen texels, and 8 bits twice.
    assert np.median(error) < 0.03
    assert np.quantile(error, 0.95) < 0.08
    # The model's own albedo is far from it, so that the photo must have been read.
    assert np.median(_relative_error(enlarge_albedo(tiny_model, tiny_model.decode_albedo(torch.zeros(4)), SIZE), truth)[seen]) > 0.15


def test_the_hidden_half_mirrors_the_seen_one(tiny_model):
    camera, truth = _camera(yaw=1.1), _symmetric_texture()
    texture = _bake(tiny_model, *_photograph(tiny_model, truth, camera), camera)
    facing = _facing(tiny_model, camera)
    hidden = (facing < 0.1) & (facing > -1) & (facing[:, ::-1] > 0.7)
    assert hidden.sum() > 500
    assert np.median(_relative_error(texture, truth)[hidden]) < 0.05


def test_what_hides_the_face_and_the_background_leave_no_colour(tiny_model):
    camera, truth = _camera(), _symmetric_texture()
    photo, inlier = _photograph(tiny_model, truth, camera)
    photo[220:300, 120:250] = MAGENTA
    marked = inlier.copy()
    marked[220:300, 120:250] = 0

    def strangest(texture):
        red, green, blue = np.moveaxis(_linear(texture), -1, 0)
        return (np.minimum(red, blue) / green.clip(1e-3)).max(), (green / red.clip(1e-3)).max()

    natural = strangest((encode_srgb(truth) * 255).byte().numpy())
    magenta, green = strangest(_bake(tiny_model, photo, marked, camera))
    assert magenta < natural[0] * 1.15
    assert green < natural[1] * 1.15
    # With the same photo and nothing marked, the occluder is seen.
    assert strangest(_bake(tiny_model, photo, inlier, camera))[0] > natural[0] * 1.5


def test_no_seam_where_the_photo_ends(tiny_model):
    """A face in another tone than the model, half of it marked as hidden: no step at the border of the mask."""
    camera = _camera()
    truth = torch.tensor([0.6, 0.2, 0.15]).expand(SIZE, SIZE, 3)
    photo, inlier = _photograph(tiny_model, truth, camera)
    inlier[HEIGHT // 2 :] = 0
    linear = np.log(_linear(_bake(tiny_model, photo, inlier, camera)))
    front = _facing(tiny_model, camera) > 0.5
    steps = np.abs(np.diff(linear, axis=0)).max(-1)[front[1:] & front[:-1]]
    assert front.sum() > 2000
    # The tones differ by half a natural logarithm; one 8-bit step of the darkest channel is 0.02.
    assert steps.max() < 0.06


def test_without_inliers_it_is_the_models_albedo(tiny_model):
    camera = _camera()
    photo, inlier = _photograph(tiny_model, _symmetric_texture(), camera)
    expected = enlarge_albedo(tiny_model, tiny_model.decode_albedo(torch.zeros(4)), SIZE)
    np.testing.assert_array_equal(_bake(tiny_model, photo, np.zeros_like(inlier), camera), expected)
    behind = dataclasses.replace(camera, translation=-camera.translation)
    np.testing.assert_array_equal(_bake(tiny_model, photo, inlier, behind), expected)


def test_the_same_input_gives_the_same_bytes(tiny_model):
    camera = _camera(0.4)
    photo, inlier = _photograph(tiny_model, _symmetric_texture(), camera)
    np.testing.assert_array_equal(_bake(tiny_model, photo, inlier, camera), _bake(tiny_model, photo, inlier, camera))


def test_a_face_cut_by_the_photos_border_and_deep_shadow_stay_in_bounds(tiny_model):
    camera = dataclasses.replace(_camera(), principal_point=torch.tensor([60.0, 40.0]))
    photo, inlier = _photograph(tiny_model, _symmetric_texture(), camera)
    lighting = _lighting()
    lighting[3] += 1.5  # one side far below zero
    albedo = tiny_model.decode_albedo(torch.zeros(4))
    texture = bake_texture(photo, tiny_model, tiny_model.mean_shape, camera, lighting, inlier, albedo, SIZE)
    ratio = _linear(texture) / albedo[0, 0].numpy()
    assert ratio.min() > 0.05
    assert ratio.max() < 3.5


@pytest.mark.parametrize("is_symmetric", [True, False])
def test_mirror_map_finds_the_mirrored_point_on_any_atlas(tiny_model, is_symmetric):
    model = tiny_model
    if not is_symmetric:
        model = dataclasses.replace(model, uv=torch.stack([model.uv[:, 0] ** 1.4, model.uv[:, 1] ** 0.8], 1))
    atlas = TextureAtlas.build(model, SIZE)
    position = (model.mean_shape.numpy()[model.triangles.numpy()[atlas.triangles]] * atlas.barycentric[..., None]).sum(2)
    chosen = atlas.has_mirror & (atlas.face_weight > 0)
    assert chosen.sum() > 3000
    column, row = np.moveaxis(atlas.mirror[chosen].round().astype(int).clip(0, SIZE - 1), -1, 0)
    distance = np.linalg.norm(position[row, column] * [-1, 1, 1] - position[chosen], axis=-1)
    # A texel is up to 5 mm wide here, and a quad is cut along the other diagonal in the mirror.
    assert np.median(distance) < 3
    assert np.quantile(distance, 0.99) < 12


def test_enlarged_albedo_has_no_dark_seam_and_is_clamped(tiny_model):
    side = tiny_model.texture_size
    texels = torch.arange(side**2).view(side, side)[8:24, 5:27].flatten()
    model = dataclasses.replace(
        tiny_model, texels=texels, albedo_mean=tiny_model.albedo_mean[texels], albedo_basis=tiny_model.albedo_basis[:, texels]
    )
    enlarged = enlarge_albedo(model, model.decode_albedo(torch.zeros(4)), 100)
    assert enlarged.shape == (100, 100, 3)
    expected = (encode_srgb(model.albedo_mean[0]) * 255).round().byte().numpy()
    assert np.abs(enlarged.astype(int) - expected).max() <= 1
    steep = tiny_model.decode_albedo(torch.zeros(4))
    steep[:, :16], steep[:, 16:] = -0.2, 1.2
    extreme = enlarge_albedo(tiny_model, steep, 100)
    assert (extreme[:, :40] == 0).all()
    assert (extreme[:, 60:] == 255).all()


def test_a_mask_of_another_size_is_refused(tiny_model):
    photo, inlier = _photograph(tiny_model, _symmetric_texture(), _camera())
    with pytest.raises(ConfigError, match="mask"):
        _bake(tiny_model, photo, inlier[:-1], _camera())
