"""The parts of synthetic scenes against plain geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from focus_backend.morphable.store import load_model
from focus_backend.networks.frame import CropFrame, five_of_68
from focus_backend.rendering import axis_angle_from_rotation, shade
from train.data.degrade import degrade
from train.data.draws import Draws
from train.data.layers import Layer, Picture, lay_over, slope_shading
from train.data.population import (
    PlacementErrors,
    draw_expression,
    draw_lighting,
    draw_rotation,
    explain_view,
    expression_habits,
    from_distance,
    place_in_crop,
)
from train.data.shapes import Capsules, Grid, capsule_distance, nearest_capsule, polygon_radii, star_distance
from train.data.synthetic_config import SyntheticConfig

CPU = torch.device("cpu")


@pytest.fixture
def draws() -> Draws:
    return Draws("cpu", 1)


@pytest.mark.parametrize(("size", "tolerance"), [(48, 1e-3), (160, 0.75)])
def test_capsules_against_the_distance_to_a_segment(size, tolerance):
    """Large pictures are interpolated from every second pixel: less exact at their border and where two capsules meet."""
    start, end = torch.tensor([[[10.0, 12.0], [30.0, 40.0]]]), torch.tensor([[[35.0, 20.0], [30.0, 40.0]]])
    radius = torch.tensor([[3.0, 5.0]])
    distance, nearest = capsule_distance(Grid.of(size, CPU), Capsules(start, end, radius, radius))
    y, x = np.mgrid[:size, :size] + 0.5
    along = np.clip(((x - 10) * 25 + (y - 12) * 8) / (25**2 + 8**2), 0, 1)
    segment = np.hypot(x - 10 - 25 * along, y - 12 - 8 * along) - 3
    dot = np.hypot(x - 30, y - 40) - 5
    np.testing.assert_allclose(distance[0].numpy(), np.minimum(segment, dot), atol=tolerance)
    assert nearest[0, 40, 30] == 5
    assert nearest[0, 13, 14] == 3


def test_capsules_together_are_as_capsules_one_by_one(draws):
    """GPUs take the first way, CPUs the second."""
    ends, radii = 40 * draws.uniform(2, 3, 5, 2), 5 * draws.uniform(2, 3, 5)
    capsules, grid = Capsules(ends[0], ends[1], radii[0], radii[1]), Grid.of(40, CPU)
    for together, single in zip(nearest_capsule(grid, capsules), capsule_distance(grid, capsules), strict=True):
        torch.testing.assert_close(together, single, atol=1e-4, rtol=0)


def test_a_polygon_contains_what_its_corners_say():
    """A square around (20, 24): its middles and corners have the radii 10 and 10 sqrt 2."""
    centre = torch.tensor([[20.0, 24.0]])
    corners = centre[:, None] + torch.tensor([[[-10.0, -10], [10, -10], [10, 10], [-10, 10]]])
    radii = polygon_radii(centre, corners, 64)
    torch.testing.assert_close(radii[0, [0, 16, 32, 48]], torch.full((4,), 10.0))
    torch.testing.assert_close(radii[0, [8, 24]], torch.full((2,), 10 * math.sqrt(2)))
    distance = star_distance(Grid.of(48, CPU), centre, radii)[0]
    rows, columns = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(48) + 0.5, indexing="ij")
    depth = 10 - torch.maximum((columns - 20).abs(), (rows - 24).abs())
    assert bool((distance[depth > 0.5] < 0).all())
    assert bool((distance[depth < -0.5] > 0).all())


def test_shading_of_slopes_is_that_of_normals(draws):
    lighting = draw_lighting(draws, 2, 0.5)
    x, y = draws.uniform(2, 4, 5, low=-0.6, high=0.6), draws.uniform(2, 4, 5, low=-0.6, high=0.6)
    normals = torch.stack([x, y, (1 - x**2 - y**2).sqrt()], -1)
    expected = shade(normals.flatten(1, 2), lighting).clamp(min=0.02).mT.unflatten(2, (4, 5))
    torch.testing.assert_close(slope_shading(x, y, lighting), expected, atol=1e-5, rtol=1e-5)


def test_a_layer_hides_what_is_inside_and_shades_what_is_beside():
    grid = Grid.of(32, CPU)
    distance = (grid.x - 16.0).expand(1, 32, 32)
    white = Picture(torch.ones(1, 3, 32, 32), torch.ones(1, 32, 32))
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    one = torch.ones(1)
    laid = lay_over(white, Layer(distance, red, one, 0.5 * one), torch.zeros(1, 2), 4 * one)
    assert bool((laid.visible[..., :15] == 0).all())
    assert bool((laid.visible[..., 17:] == 1).all())
    torch.testing.assert_close(laid.image[0, :, 5, 5], torch.tensor([1.0, 0, 0]))
    assert laid.image[0, 1, 5, 17] < 0.9
    assert laid.image[0, 1, 5, 30] == 1
    absent = lay_over(white, Layer(distance, red, 0 * one, one), torch.zeros(1, 2), 4 * one)
    assert torch.equal(absent.image, white.image)


def test_faces_are_placed_where_alignment_puts_them(draws):
    """`CropFrame.placement`, which searches the pose, finds the crop of a placed face to be the whole picture."""
    model = load_model("anny")
    frame = CropFrame.of(model, 112)
    count = 16
    rotation = draw_rotation(draws, count, 0.3, 40.0)
    points = model.landmarks68.on(model.decode_shape(0.7 * draws.normal(count, model.shape_size)), model.triangles)
    zero = torch.zeros(count)
    errors = PlacementErrors(torch.ones(count), torch.complex(zero, zero), zero)
    turned, translation = place_in_crop(frame, rotation, points, errors)
    camera = frame.camera(axis_angle_from_rotation(turned), translation)
    screen = camera.to_screen(camera.to_camera_space(five_of_68(points)))[..., :2]
    found = frame.placement(screen)
    scale = found.scale / frame.pixels_per_millimetre
    # The search knows neither pose nor identity, so it differs by a few per cent.
    assert (scale - 1).abs().median() < 0.03
    assert (scale - 1).abs().max() < 0.15
    assert found.angle.abs().median() < 0.03
    assert (found.centre - 56).norm(dim=1).median() < 2.5


def test_errors_of_crops_move_faces_as_they_say():
    model = load_model("anny")
    frame = CropFrame.of(model, 100)
    points = model.landmarks68.on(model.mean_shape, model.triangles)[None]
    one = torch.ones(1)

    def five(scale: float, shift: complex, roll: float) -> torch.Tensor:
        errors = PlacementErrors(scale * one, torch.tensor([shift], dtype=torch.complex64), roll * one)
        rotation, translation = place_in_crop(frame, torch.eye(3)[None], points, errors)
        camera = frame.camera(axis_angle_from_rotation(rotation), translation)
        return five_of_68(camera.to_screen(camera.to_camera_space(points))[..., :2])[0]

    plain, nearer = five(1, 0, 0), five(0.9, 0, 0)
    assert (nearer[0] - nearer[1]).norm() / (plain[0] - plain[1]).norm() == pytest.approx(1 / 0.9, rel=0.01)
    side = 2 / 9.06
    # A tenth of the crop to the right and up: 10 pixels, less where the perspective turns the face.
    torch.testing.assert_close(five(1, 0.1 * side + 0.1j * side, 0) - plain, torch.tensor([[10.0, -10.0]] * 5), atol=0.5, rtol=0)
    rolled = five(1, 0, 0.1)
    slope = rolled[1] - rolled[0]
    assert math.atan2(-slope[1], slope[0]) == pytest.approx(0.1, abs=0.01)


def test_the_pose_that_explains_a_view_is_found(draws):
    """A camera of the crop itself is explained without rest, from a wrong start."""
    model = load_model("anny")
    frame = CropFrame.of(model, 112)
    points = model.landmarks68.on(model.mean_shape, model.triangles).expand(3, -1, -1)
    rotation, translation = draws.normal(3, 3, scale=0.3), frame.start_translation + draws.normal(3, 3, scale=10.0)
    camera = frame.camera(rotation, translation)
    start = rotation + draws.normal(3, 3, scale=0.03), translation + draws.normal(3, 3, scale=5.0)
    found = explain_view(frame, camera, points, *start)
    again = frame.camera(*found)
    difference = again.to_screen(again.to_camera_space(points)) - camera.to_screen(camera.to_camera_space(points))
    assert difference[..., :2].abs().max() < 0.1


def test_distance_keeps_what_lies_at_the_centre(draws):
    model = load_model("anny")
    frame = CropFrame.of(model, 112)
    camera = frame.camera(draws.normal(2, 3, scale=0.3), frame.start_translation + draws.normal(2, 3, scale=5.0))
    far = from_distance(camera, frame.centre, torch.tensor([2.0, 0.5]))
    centre = frame.centre.expand(2, 1, 3)
    torch.testing.assert_close(far.project(centre), camera.project(centre), atol=1e-3, rtol=0)
    depth = far.to_camera_space(centre)[:, 0, 2] / camera.to_camera_space(centre)[:, 0, 2]
    torch.testing.assert_close(depth, torch.tensor([2.0, 0.5]))


def test_expressions_are_sparse_and_mostly_symmetric(draws):
    model = load_model("anny")
    expression = draw_expression(model, expression_habits(model), draws, 400, 0.2, 0.2)
    activation = expression * model.expression_scale
    assert activation.min() >= 0
    assert activation.max() <= 1
    assert 0.3 < (activation > 0).sum(1).float().mean() < 16
    assert 0.02 < (activation.sum(1) == 0).float().mean() < 0.3
    names = list(model.expression_names)
    left, right = activation[:, names.index("browDownLeft")], activation[:, names.index("browDownRight")]
    assert bool(((left > 0) == (right > 0)).all())
    gaze = [activation[:, names.index(name)] > 0 for name in ("eyeLookInLeft", "eyeLookInRight")]
    assert not torch.equal(*gaze)


def test_light_comes_in_all_exposures(draws):
    lighting = draw_lighting(draws, 500, 0.2)
    front = shade(torch.tensor([[0.0, 0.0, 1.0]]).expand(500, 1, 3), lighting).mean((1, 2))
    assert 0.7 < front.median() < 1.5
    assert front.quantile(0.05) < 0.7
    assert front.quantile(0.95) > 1.6
    sideways = lighting[:, 3].mean(1)
    assert 0.3 < (sideways > 0).float().mean() < 0.7


def test_jpeg_gives_blocks_and_loses_little(draws):
    config = SyntheticConfig.clean(jpeg_share=1.0)
    smooth = torch.linspace(0.2, 0.8, 50)[None, None, :, None].expand(4, 3, 50, 50).contiguous()
    packed = degrade(smooth, config, draws)
    assert packed.shape == smooth.shape
    difference = (packed - smooth).abs()
    assert 1e-4 < difference.mean() < 0.06
    assert torch.equal(degrade(smooth, config, Draws("cpu", 1)), degrade(smooth, config, Draws("cpu", 1)))


def test_no_defects_no_change(draws):
    image = draws.uniform(2, 3, 40, 40)
    torch.testing.assert_close(degrade(image, SyntheticConfig.clean(), draws), image, atol=2e-4, rtol=0)


def test_grey_pictures_have_no_colour_but_a_tone():
    image = torch.zeros(6, 3, 16, 16)
    image[:, 0, :8], image[:, 2, 8:] = 0.9, 0.9
    grey = degrade(image, SyntheticConfig.clean(grey_share=1.0), Draws("cpu", 2))
    # One tone for the whole picture: the same ratio of red to blue everywhere.
    ratio = grey[:, 0] / grey[:, 2]
    assert (ratio.amax((1, 2)) - ratio.amin((1, 2))).max() < 0.05
