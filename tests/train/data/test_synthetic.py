"""Synthetic faces: the truth they come with is the truth, the same again is the same, and nothing waits for the device."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.utils._python_dispatch import _disable_current_modes

import train.data.hair
import train.data.scene
from focus_backend.errors import ConfigError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.decoder import decode
from focus_backend.networks.frame import CropFrame
from synchronisation import count_synchronisations
from train.data.batch import FaceBatch, FaceSource
from train.data.synthetic import SyntheticConfig, SyntheticFaces

SIZE = 64


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return load_model("anny")


def make(model: FaceModel, config: SyntheticConfig | None = None, size: int = SIZE, **changes) -> SyntheticFaces:
    return SyntheticFaces(model, CropFrame.of(model, size), config, **{"seed": 3, **changes})


def eroded(mask: torch.Tensor) -> torch.Tensor:
    """Pixels whose neighbours are all of the mask."""
    return -torch.nn.functional.max_pool2d(-mask[:, None], 3, 1, 1)[:, 0] > 0.5


def values_of(batch: FaceBatch) -> list[torch.Tensor]:
    assert batch.mask is not None
    assert batch.theta is not None
    return [batch.image, batch.landmarks, batch.mask, batch.theta.shape, batch.theta.lighting, batch.theta.translation]


def is_same(first: FaceBatch, second: FaceBatch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(values_of(first), values_of(second), strict=True))


def test_a_batch_has_the_promised_form(tiny_model):
    source = make(tiny_model)
    batch = source.batch(0, 3)
    assert isinstance(source, FaceSource)
    assert batch.image.shape == (3, 3, SIZE, SIZE)
    assert batch.image.min() >= 0
    assert batch.image.max() <= 1
    assert batch.landmark_weight.tolist() == [1, 1, 1]
    assert set(batch.mask.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("size", [72, 176])
def test_theta_decodes_to_the_picture_where_nothing_is_in_front(model, size):
    """Landmarks exactly; colours inside the mask up to the rounding of transforms that change nothing."""
    source = make(model, SyntheticConfig.clean(), size)
    batch = source.batch(0, 6)
    again = decode(model, source.frame, batch.theta, antialiased=False)
    torch.testing.assert_close(batch.landmarks, again.landmarks, atol=1e-4, rtol=0)
    assert torch.equal(batch.mask > 0, again.rendering.mask)
    difference = (batch.image.permute(0, 2, 3, 1) - again.rendering.image.clamp(0, 1)).abs().amax(-1)
    inside = eroded(batch.mask)
    assert inside.float().mean() > 0.2
    # Edges inside the face (nose, lids) are antialiased in the picture.
    assert difference[inside].quantile(0.97) < 1e-3


def test_things_in_front_are_no_face(model):
    """Shares do not change what is drawn, so the same face with and without a thing can be compared."""
    bare = SyntheticConfig.clean()
    plain = make(model, bare).batch(0, 12)
    hidden = make(model, bare.model_copy(update={"occluded_share": 1.0, "hand_share": 1.0, "cover_share": 1.0})).batch(0, 12)
    assert bool((hidden.mask <= plain.mask).all())
    lost = 1 - hidden.mask.sum((1, 2)) / plain.mask.sum((1, 2))
    assert lost.mean() > 0.2
    assert lost.min() < 0.7
    unchanged = (hidden.image - plain.image).abs().amax(1) < 1e-6
    assert bool((hidden.mask == plain.mask)[unchanged].all())
    # What was lost looks different, but for things that have the colour of skin.
    changed = (hidden.image - plain.image).abs().amax(1)[(plain.mask - hidden.mask) > 0]
    assert (changed > 0.02).float().mean() > 0.8


def test_hair_and_glasses_hide_the_face_too(model):
    plain = make(model, SyntheticConfig.clean()).batch(0, 12)
    for share in ("hair_share", "beard_share", "glasses_share"):
        covered = make(model, SyntheticConfig.clean(**{share: 1.0})).batch(0, 12)
        assert bool((covered.mask <= plain.mask).all())
        assert covered.mask.sum() < 0.995 * plain.mask.sum()
        assert covered.mask.sum() > 0.5 * plain.mask.sum()


def test_other_distances_change_the_view_but_hardly_the_crop(model):
    near = SyntheticConfig.clean(perspective_spread=0.4)
    source = make(model, near, 112)
    batch = source.batch(0, 8)
    explained = decode(model, source.frame, batch.theta, antialiased=False)
    error = (explained.landmarks - batch.landmarks).norm(dim=-1)
    # The pose takes up what it can; the rest is the perspective itself.
    assert 0.05 < error.mean() < 1.5
    overlap = (batch.mask > 0) & explained.rendering.mask
    union = (batch.mask > 0) | explained.rendering.mask
    assert overlap.sum() / union.sum() > 0.93


def test_defects_leave_the_truth_alone(model):
    plain = make(model, SyntheticConfig.clean()).batch(0, 4)
    shares = {"blur_share": 1, "low_resolution_share": 1, "noise_share": 1, "jpeg_share": 1, "colour_share": 1}
    worse = make(model, SyntheticConfig.clean(**shares)).batch(0, 4)
    assert torch.equal(worse.mask, plain.mask)
    assert torch.equal(worse.landmarks, plain.landmarks)
    assert (worse.image - plain.image).abs().mean() > 0.01


def test_beyond_the_border_of_the_photo_there_is_nothing(model):
    batch = make(model, SyntheticConfig.clean(border_share=1.0)).batch(0, 12)
    outside = ~batch.inside
    assert 0.02 < outside.float().mean() < 0.6
    assert bool((batch.mask[outside] == 0).all())
    assert bool((batch.image.permute(0, 2, 3, 1)[outside] == 0).all())
    assert bool(make(model, SyntheticConfig.clean()).batch(0, 4).inside.all())


def test_the_same_step_gives_the_same_bytes(tiny_model):
    first = make(tiny_model)
    for step in range(2):
        first.batch(step, 3)
    assert is_same(first.batch(7, 3), make(tiny_model).batch(7, 3))


@pytest.mark.parametrize("change", [{"seed": 4}, {"rank": 1, "world": 2}, {"world": 2}])
def test_seeds_ranks_and_worlds_see_other_faces(tiny_model, change):
    assert not is_same(make(tiny_model).batch(0, 2), make(tiny_model, **change).batch(0, 2))


def test_steps_see_other_faces(tiny_model):
    source = make(tiny_model)
    assert not is_same(source.batch(0, 2), source.batch(1, 2))


def test_given_people_keep_their_identity(tiny_model):
    source = make(tiny_model)
    people = source.batch(0, 3).theta
    photos = [source.faces_of(people.shape, people.albedo, step) for step in range(2)]
    for photo in photos:
        assert torch.equal(photo.theta.shape, people.shape)
        assert torch.equal(photo.theta.albedo, people.albedo)
    assert not torch.equal(photos[0].theta.rotation, photos[1].theta.rotation)
    assert not torch.equal(photos[0].image, photos[1].image)


def test_nothing_waits_for_the_device(tiny_model, monkeypatch):
    """But for the renderer, which has a test of its own."""

    def unseen(render):
        def run(*args, **kwargs):
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                return render(*args, **kwargs)

        return run

    for module in (train.data.scene, train.data.hair):
        monkeypatch.setattr(module, "render", unseen(module.render))
    source = make(tiny_model)
    # Constants are copied to the device once.
    source.batch(0, 2)
    with count_synchronisations() as found:
        source.batch(1, 2)
    assert not found


def test_pieces_of_a_users_photos_are_used(tiny_model, tmp_path):
    red = np.zeros((90, 120, 3), np.uint8)
    red[..., 2] = 255
    cv2.imwrite(str(tmp_path / "red.png"), red)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    config = SyntheticConfig.clean(photos=tmp_path, photo_share=1.0)
    batch = make(tiny_model, config).batch(0, 2)
    corner = batch.image[:, :, 0, 0]
    torch.testing.assert_close(corner, torch.tensor([[1.0, 0, 0]] * 2), atol=2e-3, rtol=0)


def test_a_folder_without_photos_is_an_error(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match="no picture"):
        make(tiny_model, SyntheticConfig(photos=tmp_path))


@pytest.mark.parametrize("wrong", [{"hair_share": 1.5}, {"largest_yaw": 120}, {"moustache_share": 0.5}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        SyntheticConfig(**wrong)


def test_theta_alone_is_that_of_the_pictures(tiny_model):
    source = make(tiny_model)
    drawn, undrawn = source.batch(2, 3).theta, source.theta(2, 3)
    for name, value in vars(drawn).items():
        assert torch.equal(value, getattr(undrawn, name)), name
