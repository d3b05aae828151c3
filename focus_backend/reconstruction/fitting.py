"""The fit of one face to one photo: landmarks first, then EM between the face (M-step) and the mask of what is not face (E-step)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from focus_backend.face_crop import FaceCrop, crop_face
from focus_backend.landmarks.calibration import LandmarkNoise
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.frame import turn_lighting
from focus_backend.progress import Beat, Reporter
from focus_backend.reconstruction.landmark_fit import LandmarkTerm
from focus_backend.reconstruction.outliers import ColourNoise, Evidence, colour_noise, inlier_probability, log_evidence, without_specks
from focus_backend.reconstruction.photometric_fit import (
    Picture,
    View,
    log_appearance_prior,
    noise_level,
    picture_of,
    solve_all,
    solve_appearance,
    view,
)
from focus_backend.reconstruction.pixels import PixelTables
from focus_backend.reconstruction.state import CameraPrior, CoefficientPrior, FacePrior, FaceState
from focus_backend.rendering import ambient_lighting, decode_srgb

# The crop is the landmarks' extent with room for hair and background, which teach what outliers look like.
CROP_MARGIN = 0.35
COARSE, FINE, MASK = 96, 160, 288
COARSE_ROUNDS, FINE_ROUNDS = 4, 3
BLUR, MASK_BLUR = 1.0, 0.5
# Square millimetres that count as one observation when trials are compared.
TRIAL_AREA = 150.0
# Islands of the mask below so many square millimetres are noise: a face does not come in small pieces.
LEAST_OUTLIER_AREA, LEAST_FACE_AREA = 15.0, 200.0
# Share of the visible face that a trial needs to start from.
LEAST_PART = 0.25
# Trials must not take back at once what they started without.
TRIAL_LOG_ODDS = -1.0
# Log odds by which later rounds keep the mask they were given.
MASK_MEMORY = 1.0
# Share of its log odds by which a guess's mask counts beside the colours, and how sure it may be of itself.
GUESS_WEIGHT, SUREST_GUESS = 0.9, 0.98
# How much less a pixel tells of the face when a guess sees an outlier there, whatever its colour says.
DOUBT = 0.9
# A trial believes its first mask until albedo and lighting have settled on it.
TRIAL_HELD_ROUNDS, TRIAL_ROUNDS = 3, 4
# Standard deviation, mm, that a landmark under an outlier has beyond the detector's own.
HIDDEN_LANDMARK_NOISE = 6.0
# Share of landmarks under outliers from which their noise is looked at again.
HIDDEN_SHARE = 0.015
# A face whose inliers differ from the model by more than this was not understood.
POOR_NOISE = 0.12

Mask = Float[np.ndarray, "size size"]


@dataclass(frozen=True)
class Fit:
    """A face as it was understood, by the fit or by the networks.

    Attributes:
        state: theta.
        inlier: probability of face at each pixel of `crop`, 0 outside the rendered region.
        region: the rendered region on `crop`.
        crop: where the mask lies in the photo.
        noise: standard deviation of the inliers' colour residuals.
        principal_point: of the state's camera, photo pixels.
        colours: the face as it was drawn on `crop`, sRGB-encoded, valid inside `region`; None where that was not kept.
        landmarks68: the 68 points where the networks see them, photo pixels; None where they do not look for them.
    """

    state: FaceState
    inlier: Float[np.ndarray, "size size"]
    region: Bool[np.ndarray, "size size"]
    crop: FaceCrop
    noise: float
    principal_point: Float[Tensor, "2"]
    colours: Float[np.ndarray, "size size 3"] | None = None
    landmarks68: Float[np.ndarray, "68 2"] | None = None

    def preview(self) -> UInt8[np.ndarray, "size size 3"]:
        """The crop with the face drawn over it where it is not hidden."""
        photo = self.crop.pixels.astype(np.float32) / 255
        return laid_over(photo, photo if self.colours is None else self.colours, np.where(self.region, self.inlier, 0))

    def inlier_on(self, grid_to_photo: Float[np.ndarray, "2 3"], height: int, width: int) -> Float[np.ndarray, "height width"]:
        """Probability of face on another pixel grid, as far as the region covers it; -1 beyond.

        Args:
            grid_to_photo: affine map of the grid's pixels (centres at +0.5) to photo pixels.
            height: rows of the grid.
            width: columns of the grid.
        """
        to_grid = np.linalg.inv(grid_to_photo[:, :2])
        linear = to_grid @ self.crop.crop_to_photo[:, :2]
        # cv2 puts pixel centres at whole numbers, we put them at +0.5.
        offset = to_grid @ (self.crop.crop_to_photo[:, 2] - grid_to_photo[:, 2]) + linear @ np.full(2, 0.5) - 0.5
        matrix = np.column_stack([linear, offset])

        def moved(values: np.ndarray) -> np.ndarray:
            return cv2.warpAffine(values.astype(np.float32), matrix, (width, height), flags=cv2.INTER_LINEAR)

        # At the region's edge only a part of the crop's neighbours lie in it.
        covered = moved(self.region)
        probability = (moved(self.inlier) / np.maximum(covered, 1e-3)).clip(0, 1)
        return np.where(covered > 0, probability, -1).astype(np.float32)


class FaceFitter:
    """Fits faces of one model; reusable, holds nothing of a photo."""

    def __init__(self, model: FaceModel) -> None:
        self.tables = PixelTables(model)

    def fit(
        self,
        photo: UInt8[np.ndarray, "height width 3"],
        start: FaceState,
        landmarks: LandmarkTerm,
        noise: LandmarkNoise,
        prior: CameraPrior,
        report: Reporter | None = None,
        *,
        known: FacePrior | None = None,
        guess: Fit | None = None,
        skill: float = 0.0,
    ) -> Fit:
        """Theta and mask of the face whose landmark fit is `start`.

        Args:
            photo: RGB, sRGB-encoded.
            start: theta of the landmark fit.
            landmarks: the evidence it was made from.
            noise: of the landmarks.
            prior: of the camera.
            report: is told the stage, the fraction of the fit that is done and how the face looks.
            known: prior of the coefficients; the face model's own by default.
            guess: of the same face, whose albedo, lighting and mask are one more start for the EM.
            skill: 0 to 1, by which the guess's mask counts beside the colours.

        Raises:
            FitError: nothing of the face is visible.
        """
        known = known or FacePrior.standard(self.tables.model)
        report = report or Reporter()
        points = landmarks.observed.cpu().numpy()
        centre = (points.min(0) + points.max(0)) / 2
        side = float(np.ptp(points, axis=0).max()) * (1 + 2 * CROP_MARGIN)

        def crop(size: int) -> FaceCrop:
            return crop_face(photo, (float(centre[0]), float(centre[1])), side, size)

        coarse = crop(COARSE)
        picture = _picture_of(coarse, BLUR, guess, skill)
        seen = view(self.tables, start, picture, prior)
        starts = _starts(start, seen, picture.size) + ([] if guess is None else _start_of(guess, start, seen, coarse))
        state, mask = self._light(seen, picture, starts, known.albedo, report.part(0.0, 0.3))
        report("fitting", 0.3, lambda: _preview(seen.relit(self.tables, state), picture, mask))
        landmarks = _without_hidden(landmarks, noise, picture, mask)
        coarse_rounds, fine_rounds = report.part(0.3, 0.5), report.part(0.5, 0.9)
        for step in range(COARSE_ROUNDS):
            state, mask = self._round(state, picture, prior, landmarks, mask, known, coarse_rounds.part(*_share(step, COARSE_ROUNDS)))
        picture = _picture_of(crop(FINE), BLUR, guess, skill)
        mask = cv2.resize(mask, (FINE, FINE), interpolation=cv2.INTER_LINEAR)
        for step in range(FINE_ROUNDS):
            state, mask = self._round(state, picture, prior, landmarks, mask, known, fine_rounds.part(*_share(step, FINE_ROUNDS)))
        last = crop(MASK)
        return self._finish(state, last, _picture_of(last, MASK_BLUR, guess, skill), prior, mask, report.part(0.9, 1.0))

    def _light(
        self, seen: View, picture: Picture, starts: list[tuple[FaceState, Mask]], known: CoefficientPrior, report: Reporter
    ) -> tuple[FaceState, Mask]:
        """Albedo, lighting and mask for the landmark fit's geometry: EM from several starts, of which the most probable end wins."""
        ends = []
        for index, (state, first) in enumerate(starts):
            report("finding light and mask", index / len(starts))
            ends.append(self._light_from(state, seen, picture, first, known, report.beat))
        return max(ends, key=lambda end: end[0])[1:]

    def _light_from(
        self, state: FaceState, seen: View, picture: Picture, mask: Mask, known: CoefficientPrior, beat: Beat
    ) -> tuple[float, FaceState, Mask]:
        """Log probability, state and mask at the end of an EM for albedo and lighting."""
        rows, columns = seen.pixels.rows, seen.pixels.columns
        seen = seen.relit(self.tables, state)
        for step in range(TRIAL_HELD_ROUNDS + TRIAL_ROUNDS):
            beat()
            inlier = torch.from_numpy(mask)[rows, columns]
            weight = _counted(inlier, seen, picture)
            state = solve_appearance(self.tables, state, seen, weight, noise_level(seen.residual, weight), known)
            seen = seen.relit(self.tables, state)
            if step >= TRIAL_HELD_ROUNDS - 1:
                mask = inlier_probability(_evidence(seen, picture), _colour_noise(seen, inlier), mask, TRIAL_LOG_ODDS)
        area = len(seen.pixels) * seen.pixel_area
        data = log_evidence(_evidence(seen, picture), mask) * area / TRIAL_AREA
        return data + log_appearance_prior(state, known), state, mask

    def _round(
        self,
        state: FaceState,
        picture: Picture,
        prior: CameraPrior,
        landmarks: LandmarkTerm,
        mask: Mask,
        known: FacePrior,
        report: Reporter,
    ) -> tuple[FaceState, Mask]:
        """One E-step and one M-step; shows what the round before came to."""
        report("fitting", 0.0)
        seen = view(self.tables, state, picture, prior)
        mask, inlier, noise = _expect(seen, picture, mask, report.beat)
        report("fitting", 0.4, lambda: _preview(seen, picture, mask))
        weight = _counted(inlier, seen, picture)
        return solve_all(self.tables, state, seen, weight, noise, picture, prior, landmarks, known, report.beat), mask

    def _finish(self, state: FaceState, crop: FaceCrop, picture: Picture, prior: CameraPrior, mask: Mask, report: Reporter) -> Fit:
        """The last E-steps, at full resolution."""
        report("finding the mask", 0.0)
        seen = view(self.tables, state, picture, prior)
        mask = cv2.resize(mask, (picture.size, picture.size), interpolation=cv2.INTER_LINEAR)
        for _ in range(2):
            mask, _, noise = _expect(seen, picture, mask, report.beat)
        region = _region(seen, picture.size)
        mask = without_specks(mask, region, LEAST_OUTLIER_AREA / seen.pixel_area, LEAST_FACE_AREA / seen.pixel_area)
        report("finding the mask", 1.0, lambda: _preview(seen, picture, mask))
        return Fit(state, mask, region, crop, noise, prior.principal_point)


def laid_over(
    photo: Float[np.ndarray, "height width 3"], colours: Float[np.ndarray, "height width 3"], share: Float[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """That share of the colours over the photo; all sRGB-encoded."""
    mixed = photo + (colours - photo) * share[..., None].astype(np.float32)
    return (mixed.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _preview(seen: View, picture: Picture, mask: Mask) -> UInt8[np.ndarray, "size size 3"]:
    predicted = seen.pixels.scatter(seen.prediction.colour, picture.size, picture.size)
    return laid_over(picture.pixels.numpy(), predicted.numpy(), mask * _region(seen, picture.size))


def _share(step: int, steps: int) -> tuple[float, float]:
    return step / steps, (step + 1) / steps


def _expect(seen: View, picture: Picture, mask: Mask, beat: Beat) -> tuple[Mask, Float[Tensor, "pixels"], float]:
    """The E-step: mask, its values at the visible pixels, and the noise of the inliers."""
    rows, columns = seen.pixels.rows, seen.pixels.columns
    noise = _colour_noise(seen, torch.from_numpy(mask)[rows, columns])
    mask = inlier_probability(_evidence(seen, picture), noise, mask, memory=MASK_MEMORY, beat=beat)
    inlier = torch.from_numpy(mask)[rows, columns]
    return mask, inlier, noise_level(seen.residual, inlier)


def _counted(inlier: Float[Tensor, "pixels"], seen: View, picture: Picture) -> Float[Tensor, "pixels"]:
    """How much each visible pixel counts in the M-step."""
    return inlier if picture.counted is None else inlier * picture.counted[seen.pixels.rows, seen.pixels.columns]


def _colour_noise(seen: View, inlier: Float[Tensor, "pixels"]) -> ColourNoise:
    return colour_noise(seen.residual.numpy(), inlier.numpy())


def _evidence(seen: View, picture: Picture) -> Evidence:
    size = picture.size
    region = _region(seen, size)
    grown = cv2.dilate(region.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size // 6 + 1, size // 6 + 1))) > 0
    surround = ~grown & picture.is_inside.numpy()
    # Below the face comes the neck, which is skin.
    surround[int(np.nonzero(region)[0].max() * 0.75) :] = False
    predicted = seen.pixels.scatter(seen.prediction.colour, size, size).numpy()
    return Evidence(picture.pixels.numpy(), predicted, region, surround, picture.told)


def _region(seen: View, size: int) -> Bool[np.ndarray, "size size"]:
    region = np.zeros((size, size), bool)
    region[seen.pixels.rows.numpy(), seen.pixels.columns.numpy()] = True
    return region


def _starts(state: FaceState, seen: View, size: int) -> list[tuple[FaceState, Mask]]:
    """The state under plain light that suits each of the first masks."""
    rows, columns = seen.pixels.rows, seen.pixels.columns
    masks = _first_masks(seen, size)
    return [(dataclasses.replace(state, lighting=_first_light(seen, torch.from_numpy(mask)[rows, columns])), mask) for mask in masks]


def _start_of(guess: Fit, state: FaceState, seen: View, crop: FaceCrop) -> list[tuple[FaceState, Mask]]:
    """The state with a guess's albedo, lighting and mask; nothing where the guess sees hardly any face."""
    region = _region(seen, len(crop.pixels))
    inlier = guess.inlier_on(crop.crop_to_photo, *region.shape)
    # Where the guess's face does not reach nothing speaks against face.
    mask = np.where(region, np.where(inlier < 0, 1, inlier), 0).astype(np.float32)
    if mask[region].mean() <= LEAST_PART:
        return []
    # The two cameras look at the face from slightly different sides.
    lighting = turn_lighting(guess.state.lighting, state.rotation @ guess.state.rotation.mT)
    return [(dataclasses.replace(state, albedo=guess.state.albedo, lighting=lighting), mask)]


def _picture_of(crop: FaceCrop, blur: float, guess: Fit | None, skill: float) -> Picture:
    """The crop as the fit sees it, with what a guess's mask tells."""
    picture = picture_of(crop, blur)
    if guess is None or skill == 0:
        return picture
    inlier = guess.inlier_on(crop.crop_to_photo, picture.size, picture.size)
    likely = inlier.clip(1 - SUREST_GUESS, SUREST_GUESS)
    told = np.where(inlier < 0, 0, skill * GUESS_WEIGHT * np.log(likely / (1 - likely)))
    counted = np.where(inlier < 0, 1, 1 - DOUBT * (1 - inlier))
    return dataclasses.replace(picture, told=told.astype(np.float32), counted=torch.from_numpy(counted.astype(np.float32)))


def _first_masks(seen: View, size: int) -> list[Mask]:
    """The whole face, and the parts that a face mask, a fringe or a hand at one side leaves; mm of model space, 0 between the eyes."""
    x, y, _ = seen.pixels.interpolate(seen.vertices).unbind(-1)
    parts = (torch.ones_like(x, dtype=torch.bool), y > -20, y < 20, x > -5, x < 5)
    # Of a side that is turned away too little is seen to start from.
    return [seen.pixels.scatter(part.float(), size, size).numpy() for part in parts if part.float().mean() > LEAST_PART]


def _first_light(seen: View, inlier: Float[Tensor, "pixels"]) -> Float[Tensor, "9 3"]:
    """Ambient light that makes the model as bright as the photo's inliers."""
    chosen = inlier > 0.5 if bool((inlier > 0.5).any()) else torch.ones_like(inlier, dtype=torch.bool)
    photo = decode_srgb(seen.colour[chosen]).mean(-1).median()
    albedo = seen.prediction.albedo[chosen].mean(-1).median()
    return ambient_lighting(max(0.02, float(photo / albedo.clamp(min=0.01))), dtype=torch.float64)


def _without_hidden(term: LandmarkTerm, noise: LandmarkNoise, picture: Picture, mask: Mask) -> LandmarkTerm:
    """The landmarks with less trust in those that lie under outliers."""
    extra = hidden_variance(term.observed.cpu().numpy() * picture.scale + picture.offset, mask)
    return term if extra is None else dataclasses.replace(term, precision=noise.precision(extra, term.inflation))


def hidden_variance(places: Float[np.ndarray, "points 2"], mask: Mask) -> Float[Tensor, "points"] | None:
    """What landmarks under outliers err beyond the detector's own noise, mm^2; None where hardly any lie there.

    Args:
        places: pixels of the mask.
        mask: probability of face; where it is 0, outside the region, it says nothing.
    """
    column, row = (np.clip(places[:, axis].astype(int), 0, len(mask) - 1) for axis in (0, 1))
    hidden = np.where(mask > 0, 1 - mask, 0)[row, column]
    return None if hidden.mean() < HIDDEN_SHARE else HIDDEN_LANDMARK_NOISE**2 * torch.from_numpy(hidden)
