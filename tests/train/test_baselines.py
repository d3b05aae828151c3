"""Skin colour on colours of known distributions; patches where and only where the mask says so."""

from __future__ import annotations

import json
import math

import pytest
import torch

from focus_backend.errors import ConfigError, OutputError, WeightsError
from train.baselines import VARIANCE_FLOOR, ColourGaussian, SkinColour, cutmix, cutout, face_patches
from train.data.batch import FaceBatch

SIZE = 32
SKIN, SKIN_SPREAD = torch.tensor([0.75, 0.55, 0.45]), torch.tensor([0.08, 0.06, 0.05])


def pictures(count: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Skin-coloured discs before bluish clutter, and their masks."""
    random = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    mask = (((rows - 16) ** 2 + (columns - 16) ** 2) < 11**2).float().expand(count, -1, -1).clone()
    skin = SKIN + SKIN_SPREAD * torch.randn(count, SIZE, SIZE, 3, generator=random)
    other = torch.tensor([0.3, 0.4, 0.6]) + 0.15 * torch.randn(count, SIZE, SIZE, 3, generator=random)
    return torch.where(mask[..., None] > 0, skin, other).clamp(0, 1).movedim(-1, 1), mask


def plain_batch(count: int = 6, face: bool = True) -> FaceBatch:
    """Image i has the value 2 + i / 100 everywhere, so that pasted pixels tell where they came from."""
    values = 2 + torch.arange(count, dtype=torch.float32)[:, None, None, None] / 100
    mask = torch.ones(count, SIZE, SIZE) if face else None
    inside = torch.ones(count, SIZE, SIZE, dtype=torch.bool)
    return FaceBatch(values.expand(-1, 3, SIZE, SIZE).clone(), torch.zeros(count, 68, 2), torch.ones(count), inside, mask)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestSkinColour:
    def test_density_is_that_of_a_normal_distribution(self):
        random = torch.Generator().manual_seed(0)
        colours = torch.rand(50, 3, generator=random) @ torch.tensor([[0.5, 0.2, 0.1], [0.0, 0.4, 0.3], [0.1, 0.0, 0.2]])
        gaussian = ColourGaussian.fit(colours, torch.ones(50))
        covariance = torch.cov(colours.T, correction=0) + VARIANCE_FLOOR * torch.eye(3)
        expected = torch.distributions.MultivariateNormal(colours.mean(0), covariance).log_prob(colours)
        torch.testing.assert_close(gaussian.log_density(colours), expected, rtol=1e-4, atol=1e-4)

    def test_weights_choose_the_colours(self):
        colours = torch.tensor([[0.2, 0.2, 0.2], [0.4, 0.6, 0.8], [1.0, 1.0, 1.0]])
        assert ColourGaussian.fit(colours, torch.tensor([1.0, 3.0, 0.0])).mean.tolist() == pytest.approx([0.35, 0.5, 0.65])

    def test_finds_the_skin_of_pictures_it_has_not_seen(self):
        images, masks = pictures(seed=0)
        skin_colour = SkinColour.fit(images, masks)
        assert skin_colour.skin.mean.tolist() == pytest.approx(SKIN.tolist(), abs=0.01)
        unseen, truth = pictures(seed=1)
        probability = skin_colour.probability(unseen)
        assert probability.shape == truth.shape
        assert ((probability > 0.5) == (truth > 0.5)).float().mean() > 0.97
        # The right answer needs the right pixels: swapped masks swap it.
        assert (SkinColour.fit(images, 1 - masks).probability(unseen) + probability).sub(1).abs().max() < 1e-3

    def test_prior_is_the_share_of_skin_where_it_may_look(self):
        images, masks = pictures()
        inside = torch.zeros_like(masks, dtype=torch.bool)
        inside[:, :, 10:] = True
        share = float(masks[inside].mean())
        assert float(SkinColour.fit(images, masks, inside).log_odds) == pytest.approx(math.log(share / (1 - share)), rel=1e-4)
        assert float(SkinColour.fit(images, masks, prior=0.8).log_odds) == pytest.approx(math.log(4))

    def test_pixels_outside_teach_nothing(self):
        images, masks = pictures()
        inside = torch.ones_like(masks, dtype=torch.bool)
        inside[:, :6] = False
        changed = torch.where(inside[:, None], images, 0.0)
        expected = SkinColour.fit(images, masks, inside).probability(images)
        torch.testing.assert_close(SkinColour.fit(changed, masks, inside).probability(images), expected)

    def test_one_colour_only_is_a_distribution_too(self):
        _, masks = pictures()
        flat = torch.where(masks[:, None] > 0, SKIN[:, None, None], 0.1)
        probability = SkinColour.fit(flat, masks).probability(flat)
        torch.testing.assert_close(probability, masks)

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_masks_of_one_kind_are_refused(self, value):
        images, masks = pictures()
        with pytest.raises(ConfigError, match="skin"):
            SkinColour.fit(images, torch.full_like(masks, value))

    @pytest.mark.parametrize("prior", [0.0, 1.0, math.nan])
    def test_a_prior_that_is_none_is_refused(self, prior):
        with pytest.raises(ConfigError, match="prior"):
            SkinColour.fit(*pictures(), prior=prior)

    def test_saved_and_loaded_it_says_the_same(self, tmp_path):
        images, masks = pictures()
        skin_colour = SkinColour.fit(images, masks)
        skin_colour.save(tmp_path / "skin.json")
        assert torch.equal(SkinColour.load(tmp_path / "skin.json").probability(images), skin_colour.probability(images))
        assert [path.name for path in tmp_path.iterdir()] == ["skin.json"]

    @pytest.mark.parametrize("change", [{"log_odds": "NaN"}, {"version": 2}, {"format": "x"}, {"skin": {"mean": [1, 2]}}, {"more": 1}])
    def test_damaged_files_are_refused(self, tmp_path, change):
        path = tmp_path / "skin.json"
        SkinColour.fit(*pictures()).save(path)
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(WeightsError):
            SkinColour.load(path)

    def test_a_whitening_that_is_none_is_refused(self, tmp_path):
        path = tmp_path / "skin.json"
        SkinColour.fit(*pictures()).save(path)
        content = json.loads(path.read_text())
        content["other"]["whitening"][1][1] = -1.0
        path.write_text(json.dumps(content))
        with pytest.raises(WeightsError):
            SkinColour.load(path)

    @pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]"])
    def test_no_json_is_refused(self, tmp_path, content):
        (tmp_path / "skin.json").write_bytes(content)
        with pytest.raises(WeightsError):
            SkinColour.load(tmp_path / "skin.json")

    def test_missing_files_and_folders_are_named(self, tmp_path):
        with pytest.raises(WeightsError, match=r"none\.json"):
            SkinColour.load(tmp_path / "none.json")
        (tmp_path / "notes").write_text("mine")
        with pytest.raises(OutputError, match="notes"):
            SkinColour.fit(*pictures()).save(tmp_path / "notes" / "skin.json")


@pytest.mark.parametrize("paste", [cutmix, cutout])
class TestPatches:
    def test_mask_is_zero_exactly_where_the_image_changed(self, paste):
        batch = plain_batch()
        pasted = paste(batch, seeded(), probability=1.0)
        changed = (pasted.image != batch.image).any(1)
        assert torch.equal(pasted.mask == 0, changed)
        assert torch.equal(pasted.mask == 1, ~changed)
        assert changed.flatten(1).any(1).all()

    def test_patches_are_rectangles_of_the_promised_size(self, paste):
        covered = paste(plain_batch(count=64), seeded(), probability=1.0).mask == 0
        rows, columns = covered.any(2), covered.any(1)
        assert torch.equal(covered, rows[:, :, None] & columns[:, None, :])
        assert rows.sum(1).max() <= SIZE / 2 + 1
        assert columns.sum(1).max() <= SIZE / 2 + 1
        # Cut in half at an edge at the most.
        assert rows.sum(1).min() >= math.floor(0.15 * SIZE / 2)

    def test_same_seed_same_patches(self, paste):
        batch = plain_batch()
        first, again, other = (paste(batch, seeded(seed)) for seed in (3, 3, 4))
        assert torch.equal(first.image, again.image)
        assert torch.equal(first.mask, again.mask)
        assert not torch.equal(first.mask, other.mask)

    def test_probability_is_that_of_a_patch(self, paste):
        batch = plain_batch(count=400)
        covered = [(paste(batch, seeded(), probability=share).mask == 0).flatten(1).any(1).float().mean().item() for share in (0, 0.5, 1)]
        # Standard deviation 0.025.
        assert covered == pytest.approx([0, 0.5, 1], abs=0.1)

    def test_only_image_and_mask_change(self, paste):
        batch = plain_batch()
        original = (batch.image.clone(), batch.mask.clone())
        pasted = paste(batch, seeded(), probability=1.0)
        assert torch.equal(batch.image, original[0])
        assert torch.equal(batch.mask, original[1])
        assert pasted.landmarks is batch.landmarks
        assert pasted.inside is batch.inside

    def test_masks_are_needed(self, paste):
        with pytest.raises(ConfigError, match="masks"):
            paste(plain_batch(face=False), seeded())

    def test_no_value_is_read(self, paste, monkeypatch):
        batch = plain_batch()

        def refuse(*_):
            raise AssertionError("a value was read")

        for reader in ("item", "__bool__", "__float__", "__int__", "tolist", "numpy", "cpu", "nonzero"):
            monkeypatch.setattr(torch.Tensor, reader, refuse)
        paste(batch, seeded())


def test_centres_of_patches_lie_on_the_face():
    mask = torch.zeros(50, SIZE, SIZE)
    mask[:, 5:9, 20:24] = 1.0
    covered = face_patches(mask, seeded())
    assert (covered & (mask > 0)).flatten(1).any(1).all()
    # Narrow patches differ, so the centre is drawn and not fixed.
    assert len({tuple(patch.any(1).nonzero().flatten().tolist()) for patch in covered}) > 10


def test_cutmix_takes_one_other_image():
    batch = plain_batch()
    pasted = cutmix(batch, seeded(), probability=1.0)
    sources = set()
    for index in range(len(batch)):
        values = pasted.image[index, :, pasted.mask[index] == 0].unique()
        assert len(values) == 1
        source = round((values.item() - 2) * 100)
        assert source != index
        sources.add((source - index) % len(batch))
    assert len(sources) > 1


def test_cutmix_keeps_the_pasted_picture_whole_but_moves_it():
    """Pasted colours are neighbours in the source too, at another place."""
    places = torch.arange(SIZE * SIZE, dtype=torch.float32).reshape(SIZE, SIZE)
    batch = plain_batch(count=2)
    image = (places + torch.tensor([0.0, 5000.0])[:, None, None])[:, None].expand(-1, 3, -1, -1).clone()
    batch = FaceBatch(image, batch.landmarks, batch.landmark_weight, batch.inside, batch.mask)
    pasted = cutmix(batch, seeded(1), probability=1.0)
    for index in range(2):
        rows, columns = (pasted.mask[index] == 0).nonzero().T
        found = pasted.image[index, 0, rows, columns] - (5000 if index == 0 else 0)
        moved = torch.stack([(found // SIZE - rows) % SIZE, (found % SIZE - columns) % SIZE])
        assert (moved == moved[:, :1]).all()
        assert moved[:, 0].any()


def test_cutmix_of_a_single_image_uses_the_image_itself():
    batch = plain_batch(count=1)
    pasted = cutmix(batch, seeded(), probability=1.0)
    assert torch.equal(pasted.image, batch.image)
    assert (pasted.mask == 0).any()


def test_cutout_fills_with_one_grey_or_with_noise():
    batch = plain_batch(count=64)
    pasted = cutout(batch, seeded(), probability=1.0)
    flat = 0
    for index in range(len(batch)):
        values = pasted.image[index, :, pasted.mask[index] == 0]
        assert 0 <= values.min() <= values.max() <= 1
        flat += int((values == values[0, 0]).all())
    # Half of 64, standard deviation 4.
    assert 16 < flat < 48
