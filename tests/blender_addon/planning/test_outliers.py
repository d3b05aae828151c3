from __future__ import annotations

import numpy as np
import pytest

from blender_addon.planning.frames import camera_points, project
from blender_addon.planning.outliers import OVERLAY_COLOUR, SeenMesh, outlier_weights, overlay
from blender_addon.planning.view import PhotoView

SIZE, FOCAL = 400, 700.0
CENTRE = np.array([SIZE / 2, SIZE / 2])


def sphere(radius: float = 80.0, columns: int = 48, rows: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (mm) and quads, outside counter-clockwise, with holes at the poles."""
    up, around = np.meshgrid(np.linspace(-1.5, 1.5, rows), np.arange(columns) * 2 * np.pi / columns, indexing="ij")
    vertices = radius * np.stack([np.cos(up) * np.sin(around), np.sin(up), np.cos(up) * np.cos(around)], axis=-1).reshape(-1, 3)
    row, column = (grid.ravel() for grid in np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij"))
    here, right = row * columns + column, row * columns + (column + 1) % columns
    return vertices, np.stack([here, right, right + columns, here + columns], axis=1).astype(np.int32)


@pytest.fixture
def mesh() -> SeenMesh:
    vertices, quads = sphere()
    points = camera_points(vertices, np.eye(3), np.array([0, 0, -600.0]))
    return SeenMesh(points, project(points, FOCAL, CENTRE)[0], quads, np.ones(len(quads), bool))


def disc_masks(is_outlier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    disc = (rows - SIZE / 2) ** 2 + (columns - SIZE / 2) ** 2 < 93**2
    return 255 * (disc & ~is_outlier).astype(np.uint8), 255 * (disc & is_outlier).astype(np.uint8)


def rectangle(left: int, right: int, top: int, bottom: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_rectangle_over_one_cheek(mesh):
    left, right, top, bottom = 212, 275, 180, 260
    vertices, quads = outlier_weights(mesh, *disc_masks(rectangle(left, right, top, bottom)))
    assert vertices.dtype == quads.dtype == np.float32
    x, y = mesh.pixels.T
    in_front = mesh.points[:, 2] > -580
    # As far as a vertex's neighbourhood reaches.
    reach = 14
    deep = in_front & (x > left + reach) & (x < right - reach) & (y > top + reach) & (y < bottom - reach)
    far = (x < left - reach) | (x > right + reach) | (y < top - reach) | (y > bottom + reach)
    assert deep.sum() > 5
    np.testing.assert_allclose(vertices[deep], 1)
    assert not vertices[far].any()
    edge = in_front & ~deep & ~far
    assert ((vertices[edge] > 0) & (vertices[edge] < 1)).any()
    assert 0 < (quads > 0.5).sum() < 80
    assert quads[np.all(deep[mesh.quads], axis=1)].min() == 1
    assert not quads[np.all(far[mesh.quads], axis=1)].any()


def test_far_side_gets_nothing(mesh):
    vertices, quads = outlier_weights(mesh, *disc_masks(np.ones((SIZE, SIZE), bool)))
    behind = mesh.points[:, 2] < -600
    assert not vertices[behind].any()
    assert not quads[np.all(behind[mesh.quads], axis=1)].any()
    np.testing.assert_allclose(vertices[mesh.points[:, 2] > -570], 1)


def test_weights_at_the_face_border_tell_of_the_face_only(mesh):
    # Nothing but outliers is rendered on a strip: what lies beside it, neither face nor outlier, must not thin them out.
    face_mask, outlier_mask = disc_masks(np.ones((SIZE, SIZE), bool))
    outlier_mask[:, 200:] = 0
    vertices, _ = outlier_weights(mesh, face_mask, outlier_mask)
    near = (mesh.points[:, 2] > -550) & (np.abs(mesh.pixels[:, 0] - 200) < 3)
    assert near.any()
    np.testing.assert_allclose(vertices[near], 1)


def test_only_the_face_region_counts(mesh):
    mesh.is_face[mesh.points[mesh.quads, 0].mean(axis=1) < 0] = False
    vertices, quads = outlier_weights(mesh, *disc_masks(np.ones((SIZE, SIZE), bool)))
    assert not quads[~mesh.is_face].any()
    assert not vertices[mesh.points[:, 0] < -15].any()
    assert vertices[(mesh.points[:, 0] > 5) & (mesh.points[:, 2] > -560)].min() == 1


def test_what_is_hidden_gets_nothing(mesh):
    # A small plate in front of the sphere, which belongs to the mesh but not to the face.
    plate = np.array([[-20, -20, -480], [20, -20, -480], [20, 20, -480], [-20, 20, -480]], float)
    points = np.concatenate([mesh.points, plate])
    quads = np.concatenate([mesh.quads, [np.arange(4) + len(mesh.points)]]).astype(np.int32)
    is_face = np.append(mesh.is_face, False)
    seen = SeenMesh(points, project(points, FOCAL, CENTRE)[0], quads, is_face)
    vertices, _ = outlier_weights(seen, *disc_masks(np.ones((SIZE, SIZE), bool)))
    x, y = np.abs(seen.pixels[: len(mesh.points)] - CENTRE).T
    plate_reach = FOCAL * 20 / 480
    front = mesh.points[:, 2] > -570
    behind_plate = front & (x < plate_reach - 2) & (y < plate_reach - 2)
    beside = front & ((x > plate_reach + 2) | (y > plate_reach + 2))
    assert behind_plate.sum() > 10
    assert not vertices[: len(mesh.points)][behind_plate].any()
    assert vertices[: len(mesh.points)][beside].min() == 1


def test_triangles_are_quads_too(mesh):
    triangles = np.concatenate([mesh.quads[:, :3], mesh.quads[:, [0, 2, 3]]])
    triangles = np.column_stack([triangles, np.full(len(triangles), -1)]).astype(np.int32)
    cut = SeenMesh(mesh.points, mesh.pixels, triangles, np.ones(len(triangles), bool))
    masks = disc_masks(rectangle(220, 300, 100, 300))
    # Where the sphere turns away, halves of a quad are seen or not.
    front = mesh.points[:, 2] > -570
    np.testing.assert_allclose(outlier_weights(cut, *masks)[0][front], outlier_weights(mesh, *masks)[0][front], atol=0.2)
    assert outlier_weights(cut, *masks)[1].max() == 1


def test_face_partly_outside_the_photo():
    vertices, quads = sphere()
    points = camera_points(vertices, np.eye(3), np.array([180, 0, -600.0]))
    mesh = SeenMesh(points, project(points, FOCAL, CENTRE)[0], quads, np.ones(len(quads), bool))
    ones = np.full((SIZE, SIZE), 255, np.uint8)
    weights, _ = outlier_weights(mesh, np.zeros_like(ones), ones)
    outside = mesh.pixels[:, 0] > SIZE + 30
    assert outside.any()
    assert not weights[outside].any()
    assert weights.max() == 1


def test_points_behind_the_camera_do_no_harm():
    vertices, quads = sphere()
    points = camera_points(vertices, np.eye(3), np.zeros(3))
    mesh = SeenMesh(points, project(points, FOCAL, CENTRE)[0], quads, np.ones(len(quads), bool))
    weights, quad_weights = outlier_weights(mesh, *disc_masks(np.ones((SIZE, SIZE), bool)))
    assert np.isfinite(weights).all()
    assert np.isfinite(quad_weights).all()
    assert not weights[points[:, 2] >= 0].any()


def test_no_outliers_no_weights(mesh):
    vertices, quads = outlier_weights(mesh, *disc_masks(np.zeros((SIZE, SIZE), bool)))
    assert not vertices.any()
    assert not quads.any()


def test_overlay_tints_outliers_only():
    mask = 255 * rectangle(10, 30, 20, 50).astype(np.uint8)
    picture = overlay(mask)
    assert picture.shape == (SIZE, SIZE, 4)
    np.testing.assert_array_equal(picture[..., 3] > 0, mask > 0)
    assert tuple(picture[35, 20]) == (*OVERLAY_COLOUR, 153)
    # Its edge, all around.
    assert {tuple(picture[place]) for place in [(20, 15), (49, 15), (30, 10), (30, 29)]} == {(*OVERLAY_COLOUR, 255)}


def test_overlay_has_no_edge_along_the_photos():
    assert (overlay(np.full((5, 6), 255, np.uint8))[..., 3] == 153).all()


@pytest.mark.slow
def test_hair_over_the_forehead_of_the_demo_photo(astronaut):
    view = PhotoView.read(astronaut.result.faces[0].document)
    shown = astronaut.numpy("face0/neutral") + astronaut.numpy("face0/expression")
    points, pixels = view.points_and_pixels(shown)
    mesh = SeenMesh(points, pixels, astronaut.numpy("model/quads"), astronaut.numpy("model/quad_in_face") > 0)
    outlier_mask = astronaut.numpy("face0/outlier_mask")
    weights, quads = outlier_weights(mesh, astronaut.numpy("face0/face_mask"), outlier_mask)
    covered = weights > 0.5
    assert 30 < covered.sum() < 150
    # Above the eyes (origin of model space), all of them.
    assert shown[covered, 1].min() > 5
    # Those on the rim of the face region lie a pixel beside the mask.
    assert (outlier_mask[tuple(pixels[covered].astype(int)[:, ::-1].T)] > 0).mean() > 0.75
    # Pixels of the quads that count, each with its weight, are about the pixels of the mask.
    corners = pixels[mesh.quads]
    across, down = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    areas = np.abs(across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]) / 2
    assert (areas * quads).sum() == pytest.approx((outlier_mask > 0).sum(), rel=0.15)
