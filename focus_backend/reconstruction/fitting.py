"""The fit of one face to one photo: landmarks first, then EM between the face (M-step) and the mask of what is not face (E-step)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from focus_backend.photo import FaceCrop, crop_face
from focus_backend.reconstruction.landmark_fit import LandmarkTerm
from focus_backend.reconstruction.outliers import Evidence, inlier_probability, log_evidence
from focus_backend.reconstruction.photometric_fit import Picture, View, log_appearance_prior, noise_level, picture_of, solve_all, solve_appearance, view
from focus_backend.reconstruction.pixels import PixelTables
from focus_backend.rendering import ambient_lighting, decode_srgb
from focus_backend.reconstruction.state import CameraPrior, FaceState

# The crop is the landmarks' extent with room for hair and background, which teach what outliers look like.
CROP_MARGIN = 0.35
COARSE, FINE = 96, 160
MASK_SIZE = 288
BLUR = 1.0
# Square millimetres that count as one observation when trials are compared.
TRIAL_AREA = 150.0
# A face whose inliers differ from the model by more than this was not understood.
POOR_NOISE = 0.12


@dataclass(frozen=True)
class Fit:
    """A fitted face.

    Attributes:
        state: theta.
        inlier: probability of face at each pixel of `crop`, 0 outside the rendered region.
        region: the rendered region on `crop`.
        crop: where the mask lies in the photo.
        noise: standard deviation of the inliers' colour residuals.
    """

    state: FaceState
    inlier: Float[np.ndarray, "size size"]
    region: np.ndarray
    crop: FaceCrop
    noise: float


@dataclass(frozen=True)
class _Masked:
    """A view with its current mask."""

    seen: View
    inlier: Float[Tensor, "pixels"]
    noise: float
    mask: Float[np.ndarray, "size size"]


class FaceFitter:
    """Fits faces of one model; reusable, holds no state of a photo."""

    def __init__(self, model) -> None:  # type: ignore[no-untyped-def]
        self.tables = PixelTables(model)

    def fit(
        self,
        photo: UInt8[np.ndarray, "height width 3"],
        start: FaceState,
        landmarks: LandmarkTerm,
        prior: CameraPrior,
        report: Callable[[float], None] = lambda fraction: None,
    ) -> Fit:
        """Theta and mask of the face whose landmark fit is `start`."""
        points = landmarks.observed.cpu().numpy()
        low, high = points.min(0), points.max(0)
        centre, side = (low + high) / 2, float((high - low).max()) * (1 + 2 * CROP_MARGIN)

        def crop(size: int) -> FaceCrop:
            return crop_face(photo, (float(centre[0]), float(centre[1])), side, size)

        coarse = picture_of(crop(COARSE), BLUR)
        state, mask = self._appearance(start, coarse, prior)
        for _ in range(4):
            state, mask = self._round(state, coarse, prior, landmarks, mask)
        fine = picture_of(crop(FINE), BLUR)
        mask = None
        for _ in range(3):
            state, mask = self._round(state, fine, prior, landmarks, mask)
        last = crop(MASK_SIZE)
        seen = self._masked(state, picture_of(last, 0.5), prior, None, rounds=3)
        return Fit(state, seen.mask, self._region(seen.seen, MASK_SIZE), last, seen.noise)

    def _appearance(self, state: FaceState, picture: Picture, prior: CameraPrior) -> tuple[FaceState, np.ndarray]:
        """Albedo and lighting under a mask that starts from whole regions of the face; the start that explains most wins."""
        best: tuple[float, FaceState, np.ndarray] | None = None
        for trial in _trials(self._start(state, picture, prior)):
            tried, mask = self._lit(state, trial, picture, prior), trial
            for _ in range(4):
                seen = view(self.tables, tried, picture, prior)
                inlier = torch.from_numpy(mask)[seen.pixels.rows, seen.pixels.columns]
                noise = noise_level(seen.residual, inlier)
                tried = solve_appearance(self.tables, tried, seen, inlier, noise)
                seen = view(self.tables, tried, picture, prior)
                noise = noise_level(seen.residual, inlier)
                mask = self._expect(seen, picture, noise, mask)
            score = self._score(tried, seen, picture, mask)
            if best is None or score > best[0]:
                best = score, tried, mask
        assert best is not None
        return best[1], best[2]

    def _score(self, state: FaceState, seen: View, picture: Picture, mask: np.ndarray) -> float:
        """Log probability of a trial: its mask's colours, and how plausible the albedo and lighting are that it needs."""
        area = len(seen.pixels) * seen.pixel_area
        data = log_evidence(self._evidence(seen, picture), mask) * area / TRIAL_AREA
        return data + log_appearance_prior(state)

    def _lit(self, state: FaceState, mask: np.ndarray, picture: Picture, prior: CameraPrior) -> FaceState:
        """The state with ambient light that makes the model as bright as the photo inside a mask."""
        seen = view(self.tables, state, picture, prior)
        rows, columns = seen.pixels.rows, seen.pixels.columns
        chosen = torch.from_numpy(mask)[rows, columns] > 0.5
        photo = decode_srgb(picture.pixels[rows, columns][chosen]).mean(-1).median()
        albedo = seen.prediction.albedo[chosen].mean(-1).median()
        lighting = ambient_lighting(max(0.02, float(photo / albedo.clamp(min=0.01))), dtype=torch.float64)
        return dataclasses.replace(state, lighting=lighting)

    def _start(self, state: FaceState, picture: Picture, prior: CameraPrior) -> View:
        return view(self.tables, state, picture, prior)

    def _round(
        self, state: FaceState, picture: Picture, prior: CameraPrior, landmarks: LandmarkTerm, mask: np.ndarray | None
    ) -> tuple[FaceState, np.ndarray]:
        """One E-step and one M-step."""
        masked = self._masked(state, picture, prior, mask)
        state = solve_all(self.tables, state, masked.seen, masked.inlier, masked.noise, picture, prior, landmarks)
        return state, masked.mask

    def _masked(self, state: FaceState, picture: Picture, prior: CameraPrior, mask: np.ndarray | None, rounds: int = 1) -> _Masked:
        seen = view(self.tables, state, picture, prior)
        rows, columns = seen.pixels.rows, seen.pixels.columns
        for _ in range(rounds):
            inlier = torch.ones(len(seen.pixels)) if mask is None else torch.from_numpy(mask)[rows, columns]
            mask = self._expect(seen, picture, noise_level(seen.residual, inlier), mask)
        inlier = torch.from_numpy(mask)[rows, columns]
        return _Masked(seen, inlier, noise_level(seen.residual, inlier), mask)

    def _expect(self, seen: View, picture: Picture, noise: float, mask: np.ndarray | None) -> np.ndarray:
        return inlier_probability(self._evidence(seen, picture), noise, mask)

    def _evidence(self, seen: View, picture: Picture) -> Evidence:
        size = picture.size
        predicted = seen.pixels.scatter(seen.prediction.colour, size, size).numpy()
        region = self._region(seen, size)
        photo = picture.pixels.numpy()
        surround = ~_grown(region, size // 12) & picture.is_inside.numpy()
        # Below the chin comes the neck, which is skin.
        surround[int(np.nonzero(region)[0].max(initial=0) * 0.75) :] = False
        return Evidence(photo, predicted, region, surround)

    def _region(self, seen: View, size: int) -> np.ndarray:
        region = np.zeros((size, size), bool)
        region[seen.pixels.rows.numpy(), seen.pixels.columns.numpy()] = True
        return region


def _grown(region: np.ndarray, pixels: int) -> np.ndarray:
    import cv2

    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.dilate(region.astype(np.uint8), kernel) > 0


def _trials(seen: View) -> list[np.ndarray]:
    """First masks: the whole face, the part above the nose's middle, the part below the brows."""
    size = int(max(seen.pixels.rows.max(), seen.pixels.columns.max())) + 1
    size = COARSE
    position = seen.pixels.interpolate(seen.vertices)
    masks = []
    for chosen in (position[:, 1] > -1e9, position[:, 1] > -20, position[:, 1] < 20):
        masks.append(seen.pixels.scatter(chosen.float(), size, size).numpy())
    return masks
