"""The E-step: which pixels of the rendered region are face."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from focus_backend.reconstruction.outliers import (
    LARGEST_EVIDENCE,
    ColourNoise,
    Evidence,
    colour_noise,
    inlier_probability,
    log_evidence,
    neighbour_distance,
    without_specks,
)
from reconstruction.people import SIDE, f1, lamp, random_person

NOISE = ColourNoise(lightness=0.04, tint=0.02)
SKY, BRICK, INK = (0.2, 0.4, 0.8), (0.6, 0.25, 0.15), (0.03, 0.03, 0.05)


def evidence_of(person, photo=None):
    """A person's own picture as the prediction; the photo is that picture with camera noise, or another."""
    predicted = person.pixels.astype(np.float32) / 255
    around = cv2.dilate(person.region.astype(np.uint8), np.ones((65, 65), np.uint8)) > 0
    return Evidence(with_noise(predicted) if photo is None else photo, predicted, person.region, ~around)


def with_noise(picture, deviation=0.02, seed=0):
    return np.clip(picture + np.random.default_rng(seed).normal(0, deviation, picture.shape), 0, 1).astype(np.float32)


def with_square(person, centre, half, colour):
    """The photo with a square of one colour laid over it, and where that covers the region."""
    photo = with_noise(person.pixels.astype(np.float32) / 255)
    place = (slice(centre[1] - half, centre[1] + half), slice(centre[0] - half, centre[0] + half))
    photo[place] = with_noise(np.full((2 * half, 2 * half, 3), colour, np.float32))
    covered = np.zeros((SIDE, SIDE), bool)
    covered[place] = True
    return photo, covered & person.region


def middle_of(region):
    rows, columns = np.nonzero(region)
    return int(columns.mean()), int(rows.mean())


def rejected(evidence, mask):
    return evidence.region & (mask <= 0.5)


@pytest.fixture(scope="module")
def person(model):
    return random_person(model, 0)


@pytest.mark.parametrize("colour", [SKY, BRICK, INK], ids=["blue", "brick", "black"])
def test_a_square_over_the_face_is_found_as_one_clean_region(person, colour):
    centre = middle_of(person.region)
    photo, covered = with_square(person, centre, 30, colour)
    evidence = evidence_of(person, photo)
    mask = inlier_probability(evidence, NOISE)
    for _ in range(2):
        mask = inlier_probability(evidence, NOISE, mask)
    out = rejected(evidence, without_specks(mask, evidence.region, 20, 100))
    assert f1(out, covered) > 0.9
    assert cv2.connectedComponents(out.astype(np.uint8))[0] - 1 <= 3
    # Nor are there holes in it; its very edge may be found a pixel or two beside.
    assert out[cv2.erode(covered.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0].mean() > 0.98


def test_small_things_are_found_too(person):
    column, row = middle_of(person.region)
    photo, covered = with_square(person, (column - 35, row - 30), 8, SKY)
    evidence = evidence_of(person, photo)
    assert f1(rejected(evidence, inlier_probability(evidence, NOISE)), covered) > 0.8


@pytest.mark.parametrize("seed", range(4))
def test_a_face_that_fits_is_no_outlier(model, seed):
    evidence = evidence_of(random_person(model, seed))
    mask = inlier_probability(evidence, NOISE)
    for _ in range(4):
        mask = inlier_probability(evidence, NOISE, mask)
    assert rejected(evidence, mask).sum() < 0.01 * evidence.region.sum()


def test_a_face_that_is_two_pixels_off_is_no_outlier(person):
    photo = np.roll(with_noise(person.pixels.astype(np.float32) / 255), (2, -2), (0, 1))
    evidence = evidence_of(person, photo)
    assert rejected(evidence, inlier_probability(evidence, NOISE)).sum() < 0.03 * evidence.region.sum()


def test_a_face_before_a_wall_of_its_own_colour_stays_a_face(person):
    evidence = evidence_of(person)
    skin = np.median(evidence.photo[evidence.region], 0)
    photo = np.where(evidence.region[..., None], evidence.photo, with_noise(np.broadcast_to(skin, evidence.photo.shape), 0.01, 1))
    evidence = Evidence(photo.astype(np.float32), evidence.predicted, evidence.region, evidence.surround)
    assert rejected(evidence, inlier_probability(evidence, NOISE)).sum() < 0.02 * evidence.region.sum()


def test_what_the_wall_is_like_helps_to_see_it(model):
    # Over the face lies what is also around it, of a colour not far from skin's.
    person = random_person(model, 2)
    skin = np.median(person.pixels[person.region] / 255, 0)
    colour = np.clip(skin + 0.17 * np.array([-1, 0.4, 0.4]), 0, 1)
    photo, covered = with_square(person, middle_of(person.region), 30, colour)
    plain = Evidence(photo, person.pixels.astype(np.float32) / 255, person.region, np.zeros_like(person.region))
    outside = np.where(person.region[..., None], photo, with_noise(np.broadcast_to(colour, photo.shape), 0.02, 2)).astype(np.float32)
    told = Evidence(outside, plain.predicted, person.region, evidence_of(person).surround)
    means = [inlier_probability(evidence, NOISE)[covered].mean() for evidence in (plain, told)]
    assert means[1] < means[0]


def test_probabilities_are_ones_and_none_lies_outside_the_region(person):
    photo, _ = with_square(person, middle_of(person.region), 40, SKY)
    mask = inlier_probability(evidence_of(person, photo), NOISE)
    assert mask.dtype == np.float32
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert (mask[~person.region] == 0).all()
    # Never so sure that a later round could not change its mind.
    assert mask[person.region].min() > 1 / (1 + np.exp(LARGEST_EVIDENCE + 6))


def test_noisier_fits_are_judged_more_mildly(person):
    photo = np.clip(person.pixels.astype(np.float32) / 255 + np.array([0.15, 0.1, 0.1], np.float32), 0, 1)
    strict, mild = (
        inlier_probability(evidence_of(person, photo), noise)[person.region].mean() for noise in (NOISE, ColourNoise(0.12, 0.06))
    )
    assert mild > strict


def test_the_same_evidence_gives_the_same_mask(person):
    photo, _ = with_square(person, middle_of(person.region), 25, BRICK)
    first, again = (inlier_probability(evidence_of(person, photo), NOISE) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("kind", ["all outlier", "no region", "one pixel", "everything", "no surround", "all outlier before", "flat"])
def test_degenerate_pictures_give_probabilities(person, kind):
    evidence = evidence_of(person)
    photo, predicted, region, surround, previous = evidence.photo, evidence.predicted, evidence.region, evidence.surround, None
    if kind == "all outlier":
        photo = np.broadcast_to(np.float32([0.0, 1.0, 0.0]), photo.shape).copy()
    elif kind == "no region":
        region = np.zeros_like(region)
    elif kind == "one pixel":
        region = np.zeros_like(region)
        region[0, 0] = True
    elif kind == "everything":
        region, surround = np.ones_like(region), np.zeros_like(region)
    elif kind == "no surround":
        surround = np.zeros_like(region)
    elif kind == "all outlier before":
        previous = np.zeros(region.shape, np.float32)
    else:
        photo = predicted = np.zeros_like(photo)
    mask = inlier_probability(Evidence(photo, predicted, region, surround), NOISE, previous)
    assert np.isfinite(mask).all()
    assert (mask[~region] == 0).all()
    if kind == "all outlier":
        assert mask[region].max() < 0.5
    if kind in ("no surround", "flat"):
        assert mask[region].min() > 0.5


def test_one_bad_round_can_be_undone(person):
    evidence = evidence_of(person)
    mask = np.zeros(evidence.region.shape, np.float32)
    for _ in range(3):
        mask = inlier_probability(evidence, NOISE, mask)
    assert rejected(evidence, mask).sum() < 0.02 * evidence.region.sum()


def test_distance_is_to_the_nearest_colour_in_a_window(person):
    random = np.random.default_rng(3)
    photo, predicted = random.random((2, 12, 14, 3)).astype(np.float32)
    region = random.random((12, 14)) > 0.3
    found = neighbour_distance(photo, predicted, region, 1)
    for row, column in ((0, 0), (5, 6), (11, 13), (3, 0)):
        near = [
            ((photo[row, column] - predicted[r, c]) ** 2).sum()
            for r in range(max(0, row - 1), min(12, row + 2))
            for c in range(max(0, column - 1), min(14, column + 2))
            if region[r, c]
        ]
        assert np.isclose(found[row, column], min(near), rtol=1e-4)


def test_the_true_mask_explains_a_photo_best(person):
    photo, covered = with_square(person, middle_of(person.region), 35, SKY)
    evidence = evidence_of(person, photo)
    everything = person.region.astype(np.float32)
    true, wrong = everything * ~covered, everything * covered
    assert log_evidence(evidence, true) > log_evidence(evidence, everything)
    assert log_evidence(evidence, true) > log_evidence(evidence, wrong)


@pytest.mark.parametrize("direction", [(1.0, 0.2, 0.1), (-1.0, 0.3, 0.0), (0.0, 1.0, 0.0)], ids=["left", "right", "above"])
def test_skin_in_shadow_is_skin_to_a_model_that_knows_the_light(model, direction):
    evidence = evidence_of(random_person(model, 1, lighting=lamp(direction, 1.0, 0.12)))
    mask = inlier_probability(evidence, NOISE)
    assert rejected(evidence, inlier_probability(evidence, NOISE, mask)).sum() < 0.02 * evidence.region.sum()


def test_what_networks_tell_counts_beside_the_colours(person):
    evidence = evidence_of(person)
    left = np.zeros(evidence.region.shape, np.float32)
    left[:, : left.shape[1] // 2] = -9.0
    alone, told = (inlier_probability(seen, NOISE) for seen in (evidence, dataclasses.replace(evidence, told=left)))
    is_told, is_not = evidence.region & (left < 0), evidence.region & (left == 0)
    assert told[is_told].mean() < alone[is_told].mean() - 0.02
    assert told[is_not].mean() > alone[is_not].mean() - 0.02


def test_noise_of_lightness_and_tint_is_the_inliers():
    random = np.random.default_rng(0)
    grey = random.normal(0, 0.1, (20000, 1)) * np.ones(3) / np.sqrt(3)
    tint = random.normal(0, 0.02, (20000, 3))
    tint -= tint.mean(1, keepdims=True)
    residual, inlier = (grey + tint).astype(np.float32), np.ones(20000, np.float32)
    # Outliers, however wild, are hardly heard.
    residual[:6000], inlier[:6000] = 0.9, 0.0
    noise = colour_noise(residual, inlier)
    assert np.isclose(noise.lightness, 0.1, rtol=0.05)
    assert np.isclose(noise.tint, 0.02, rtol=0.05)
    none = colour_noise(residual, np.zeros(20000, np.float32))
    assert np.isfinite(none.whitening()).all()


def test_specks_of_either_kind_are_removed_and_larger_islands_stay():
    region = np.ones((40, 40), bool)
    mask = np.full((40, 40), 0.9, np.float32)
    mask[5:15, 5:15] = 0.1
    mask[9:11, 9:11] = 0.8
    mask[30, 30:33] = 0.2
    cleaned = without_specks(mask, region, 10, 10)
    assert (cleaned[5:15, 5:15] < 0.5).all()
    assert (cleaned[30, 30:33] > 0.5).all()
    assert ((cleaned < 0.5).sum(), (mask < 0.5).sum()) == (100, 99)
