from __future__ import annotations

import copy
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blender_addon.errors import AddonError
from blender_addon.head import PhotoPlan
from blender_addon.options import SceneOptions
from blender_addon.planning.plan import plan_photo

PHOTO = Path("/photos/me and you.jpg")
NOTHING = SceneOptions(expression=False, expressions=False, identity=False, camera=False, world=False, mask=False)


def planned(answer, options: SceneOptions | None = None, arrays=None) -> PhotoPlan:
    return plan_photo(answer.result, answer.arrays if arrays is None else arrays, PHOTO, options or SceneOptions())


def decoded(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


def with_document(answer, change) -> object:
    face = answer.result.faces[0]
    document = copy.deepcopy(face.document)
    change(document)
    result = dataclasses.replace(answer.result, faces=[dataclasses.replace(face, document=document)])
    return dataclasses.replace(answer, result=result)


def test_head_is_the_neutral_one_in_metres(answer):
    plan = planned(answer)
    (head,) = plan.heads
    neutral = answer.numpy("face0/neutral")
    x, y, z = head.mesh.vertices.T * 1000
    np.testing.assert_allclose(np.stack([x, z, -y], axis=1), neutral, atol=1e-3)
    np.testing.assert_array_equal(head.mesh.quads, answer.numpy("model/quads"))
    np.testing.assert_array_equal(head.mesh.quad_uv, answer.numpy("model/quad_uv"))
    np.testing.assert_array_equal(head.mesh.uv, answer.numpy("model/uv"))
    np.testing.assert_array_equal(head.mesh.is_face, answer.numpy("model/quad_in_face") == 1)
    assert head.mesh.is_face.dtype == bool
    assert (plan.name, head.name, head.photo_path) == ("me and you", "me and you", str(PHOTO))
    assert head.photo_sha256 == answer.result.faces[0].document["photo"]["sha256"]
    assert head.warnings == tuple(answer.result.faces[0].warnings)


def test_sliders_are_in_order(answer):
    keys = planned(answer).heads[0].mesh.shape_keys
    components = len(answer.numpy("model/identity"))
    names = ["Fitted expression", *answer.result.model.expressions, *(f"Identity {k + 1}" for k in range(components))]
    assert [key.name for key in keys] == names
    assert [key.value for key in keys] == [1.0] + [0.0] * (len(keys) - 1)
    assert {(key.minimum, key.maximum) for key in keys[:53]} == {(0.0, 1.0)}
    assert {(key.minimum, key.maximum) for key in keys[53:]} == {(-3.0, 3.0)}
    for key, offsets in ((keys[0], "face0/expression"), (keys[5], "model/expressions"), (keys[54], "model/identity")):
        source = answer.numpy(offsets)
        source = source if source.ndim == 2 else source[4 if offsets.endswith("expressions") else 1]
        np.testing.assert_allclose(key.offsets * 1000, np.stack([source[:, 0], -source[:, 2], source[:, 1]], axis=1), atol=1e-4)


def test_unit_scale_scales_all_lengths(answer):
    one, hundred = (planned(answer, SceneOptions(unit_scale=scale)).heads[0] for scale in (1.0, 100.0))
    np.testing.assert_allclose(hundred.mesh.vertices, one.mesh.vertices * 100, rtol=1e-5)
    np.testing.assert_allclose(hundred.mesh.shape_keys[3].offsets, one.mesh.shape_keys[3].offsets * 100, rtol=1e-5)
    np.testing.assert_allclose(hundred.camera.matrix[:3, 3], one.camera.matrix[:3, 3] * 100, rtol=1e-5)
    np.testing.assert_array_equal(hundred.camera.matrix[:3, :3], one.camera.matrix[:3, :3])
    np.testing.assert_array_equal(hundred.environment, one.environment)


def test_fitted_head_lies_under_the_photos_landmarks(answer, tiny_model):
    head = planned(answer).heads[0]
    fitted = head.mesh.vertices + head.mesh.shape_keys[0].offsets
    to_camera = np.linalg.inv(head.camera.matrix)
    x, y, z = (fitted @ to_camera[:3, :3].T + to_camera[:3, 3]).T
    centre, focal = head.camera.principal_point_px, head.camera.focal_length_px
    pixels = np.stack([centre[0] + focal * x / -z, centre[1] - focal * y / -z], axis=1)
    camera = answer.result.faces[0].document["camera"]
    shown = answer.numpy("face0/neutral") + answer.numpy("face0/expression")
    x, y, z = (shown @ np.array(camera["rotation"]).T + camera["translation_mm"]).T
    wanted = np.stack([centre[0] + focal * x / -z, centre[1] - focal * y / -z], axis=1)
    np.testing.assert_allclose(pixels, wanted, atol=1e-2)
    assert (head.camera.width_px, head.camera.height_px) == (camera["width_px"], camera["height_px"])
    assert (focal, list(centre)) == (camera["focal_length_px"], camera["principal_point_px"])


def test_pictures_hold_the_arrays(answer):
    head = planned(answer).heads[0]
    np.testing.assert_array_equal(decoded(head.albedo.png), answer.numpy("face0/albedo"))
    np.testing.assert_array_equal(decoded(head.texture.png), answer.numpy("face0/texture"))
    np.testing.assert_array_equal(decoded(head.outlier_mask.png), answer.numpy("face0/outlier_mask"))
    np.testing.assert_array_equal(decoded(head.outlier_overlay.png)[..., 3] > 0, answer.numpy("face0/outlier_mask") > 0)
    pictures = (head.albedo, head.texture, head.photo, head.outlier_mask, head.outlier_overlay)
    assert [picture.is_colour for picture in pictures] == [True, True, True, False, True]
    assert [picture.name.removeprefix("me and you ") for picture in pictures] == [
        *("albedo", "texture", "photo"),
        *("outlier mask", "outlier overlay"),
    ]
    assert (head.photo.path, head.photo.png) == (str(PHOTO), b"")


def test_photo_that_came_along_is_packed(answer_of_three):
    heads = planned(answer_of_three).heads
    np.testing.assert_array_equal(decoded(heads[0].photo.png), answer_of_three.numpy("photo"))
    assert heads[0].photo.path == ""
    assert heads[2].photo is heads[0].photo


def test_faces_keep_their_own_arrays(answer_of_three):
    heads = planned(answer_of_three).heads
    assert [head.name for head in heads] == ["me and you", "me and you 2", "me and you 3"]
    assert [head.face_index for head in heads] == [0, 1, 2]
    for index, head in enumerate(heads):
        np.testing.assert_allclose(head.mesh.vertices[:, 0] * 1000, answer_of_three.numpy(f"face{index}/neutral")[:, 0], atol=1e-3)
        assert json.loads(head.properties["focus_document"])["face_index"] == index
    # What is the model's is held once.
    assert heads[1].mesh.shape_keys[7] is heads[0].mesh.shape_keys[7]


def test_outliers_land_where_the_mask_is(answer):
    mesh = planned(answer).heads[0].mesh
    assert 0 < (mesh.vertex_outlier > 0.5).sum() < len(mesh.vertices) / 3
    # The mask's outliers are the lower 30 % of the face.
    low = mesh.vertices[mesh.vertex_outlier > 0.5, 2]
    assert low.max() < np.median(mesh.vertices[:, 2])
    assert not mesh.quad_outlier[~mesh.is_face].any()


def test_environment_lights_as_the_document_says(answer):
    from blender_addon.planning.environment import environment

    document = answer.result.faces[0].document
    wanted = environment(np.array(document["lighting"]), np.array(document["camera"]["rotation"]))
    np.testing.assert_array_equal(planned(answer).heads[0].environment, wanted)


def test_each_option_switches_its_own_off(answer):
    head = planned(answer, NOTHING).heads[0]
    assert [key.name for key in head.mesh.shape_keys] == ["Fitted expression"]
    assert head.mesh.shape_keys[0].value == 0
    assert (head.camera, head.environment, head.outlier_mask, head.outlier_overlay) == (None, None, None, None)
    assert not head.mesh.vertex_outlier.any()
    assert head.albedo is not None


def test_what_is_switched_off_need_not_be_there(answer):
    needless = ("model/expressions", "model/identity", "face0/face_mask", "face0/outlier_mask")
    arrays = {name: array for name, array in answer.arrays.items() if name not in needless}
    assert planned(answer, NOTHING, arrays).heads[0].name == "me and you"


def test_parts_that_were_not_asked_for_are_none(answer):
    result = dataclasses.replace(answer.result, parts=["geometry"])
    head = planned(dataclasses.replace(answer, result=result)).heads[0]
    assert (head.albedo, head.texture, head.outlier_mask) == (None, None, None)


@pytest.mark.parametrize(
    "name",
    [
        *("face0/neutral", "face0/expression", "face0/albedo", "face0/texture", "face0/face_mask", "face0/outlier_mask"),
        *("model/quads", "model/quad_uv", "model/uv", "model/quad_in_face", "model/expressions", "model/identity"),
    ],
)
def test_missing_arrays_are_told(answer, name):
    arrays = {key: array for key, array in answer.arrays.items() if key != name}
    with pytest.raises(AddonError, match=name) as caught:
        planned(answer, arrays=arrays)
    assert caught.value.code == "answer"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["face0/neutral", "face0/expression", "model/uv", "model/expressions", "model/identity"])
def test_values_that_are_not_finite_are_told(answer, name):
    def spoil(values):
        values.flat[7] = np.nan
        return values

    with pytest.raises(AddonError, match=f"{name} with values that are not finite"):
        planned(answer, arrays=answer.changed(name, spoil))


def test_quads_beyond_the_vertices_are_told(answer):
    def spoil(quads):
        quads[3, 1] = 10_000
        return quads

    with pytest.raises(AddonError, match="model/quads that points beyond"):
        planned(answer, arrays=answer.changed("model/quads", spoil))


def test_masks_of_another_size_are_told(answer):
    with pytest.raises(AddonError, match="face0/outlier_mask of uint8"):
        planned(answer, arrays=answer.changed("face0/outlier_mask", lambda mask: mask[:-1]))


def test_triangles_must_agree(answer):
    def spoil(quads):
        quads[np.flatnonzero(quads[:, 3] >= 0)[0], 3] = -1
        return quads

    with pytest.raises(AddonError, match="triangles"):
        planned(answer, arrays=answer.changed("model/quad_uv", spoil))


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("camera"),
        lambda document: document["camera"].update(rotation=[1, 2, 3]),
        lambda document: document["camera"].update(rotation=[[0, 0, 0]] * 3),
        lambda document: document["camera"].update(rotation=[[-1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        lambda document: document["camera"].update(focal_length_px=0),
        lambda document: document["camera"].update(width_px="wide"),
        lambda document: document.update(lighting=[[0, 0, 0]] * 8),
    ],
)
def test_documents_that_lack_something_are_told(answer, change):
    with pytest.raises(AddonError) as caught:
        planned(with_document(answer, change))
    assert caught.value.code == "answer"


def test_answer_without_faces_is_told(answer):
    with pytest.raises(AddonError, match="no faces"):
        planned(dataclasses.replace(answer, result=dataclasses.replace(answer.result, faces=[])))


def test_same_face_twice_is_told(answer):
    with pytest.raises(AddonError, match="same face twice"):
        planned(dataclasses.replace(answer, result=dataclasses.replace(answer.result, faces=answer.result.faces * 2)))


@pytest.mark.parametrize("name", ["Basis", "Fitted expression", "Identity 1", "\ud800", "x" * 64])
def test_expressions_that_blender_would_name_otherwise_are_told(answer, name):
    model = answer.result.model
    for names in ([name, *model.expressions[1:]], [model.expressions[1], *model.expressions[1:]]):
        changed = dataclasses.replace(answer.result, model=dataclasses.replace(model, expressions=names))
        with pytest.raises(AddonError, match="names of expressions"):
            planned(dataclasses.replace(answer, result=changed))


def test_relative_paths_become_absolute(answer):
    plan = plan_photo(answer.result, answer.arrays, Path("me.jpg"), NOTHING)
    assert plan.photo_path == str(Path("me.jpg").absolute())
    assert plan.heads[0].photo.path == plan.photo_path


def test_path_that_blender_cannot_keep_is_told(answer):
    with pytest.raises(AddonError, match="rename"):
        plan_photo(answer.result, answer.arrays, Path("/photos/\ud800.jpg"), NOTHING)
    # A file name of Linux that is no UTF-8 is kept as it is.
    assert plan_photo(answer.result, answer.arrays, Path("/photos/caf\udce9.jpg"), NOTHING).photo_path.endswith("caf\udce9.jpg")


@pytest.mark.slow
def test_demo_photo(astronaut):
    (head,) = planned(astronaut).heads
    assert len(head.mesh.vertices) == astronaut.result.model.vertices
    assert len(head.mesh.shape_keys) == 63
    assert "jawOpen" in [key.name for key in head.mesh.shape_keys]
    size = np.ptp(head.mesh.vertices, axis=0)
    assert 0.12 < size[0] < 0.25
    assert head.camera.matrix[1, 3] < -0.3
    assert decoded(head.texture.png).shape == (1024, 1024, 3)
