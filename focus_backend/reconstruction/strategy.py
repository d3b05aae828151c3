"""The ways of understanding a face: by the fit, by the networks, or by the fit that starts from the networks' answer."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from focus_backend.landmarks import Detection, LandmarkDetector
from focus_backend.landmarks.calibration import DetectorCalibration, LandmarkNoise
from focus_backend.landmarks.calibration_store import calibration_for, independent_noise
from focus_backend.landmarks.user import embed_names
from focus_backend.morphable.face_model import FaceModel
from focus_backend.photo import Photo
from focus_backend.progress import Beat, Reporter, quiet
from focus_backend.reconstruction.encoder_skill import encoder_skills, mask_skill
from focus_backend.reconstruction.fitting import FaceFitter, Fit, hidden_variance
from focus_backend.reconstruction.landmark_fit import LandmarkTerm, fit_likeliest, landmark_term
from focus_backend.reconstruction.network import FaceNetworks, check_guess
from focus_backend.reconstruction.state import CameraPrior, CoefficientPrior, FacePrior


class UsualDistance(NamedTuple):
    """From how far faces are photographed: a normal distribution of the logarithm.

    Attributes:
        share: of all photos.
        millimetres: in the middle.
        log_spread: standard deviation.
    """

    share: float
    millimetres: float
    log_spread: float


# Photos are taken with anything from a phone's lens to a portrait lens: 50 mm on full frame, within a factor of 1.8.
FOCAL_LENGTH_IN_SIDES = 1.4
LOG_FOCAL_SPREAD = 0.6
PORTRAITS, SELFIES, ACROSS_A_ROOM = UsualDistance(0.6, 800.0, 0.4), UsualDistance(0.15, 250.0, 0.3), UsualDistance(0.25, 2500.0, 0.6)
# Photos tell less of a shape than drawn faces do, so that the truth is to be expected nearer to the mean head than the networks' answer.
SHAPE_SHARE = 0.9
# Real photos err more than renders. Points that networks moved are in their answer already, from which the fit starts.
NOISE_INFLATION, MOVED_INFLATION = 2.0, 16.0


@dataclass(frozen=True)
class FoundFace:
    """A face of a photo, and whether the user showed where it is or a detector found it."""

    photo: Photo
    detection: Detection
    is_users: bool


class Clock:
    """Writes the seconds since the last lap into a dictionary."""

    def __init__(self, laps: dict[str, float]) -> None:
        self._laps, self._last = laps, time.perf_counter()

    def lap(self, name: str) -> None:
        """Ends the stage of that name."""
        now = time.perf_counter()
        self._laps[name], self._last = now - self._last, now


@runtime_checkable
class Strategy(Protocol):
    """A way of understanding faces; calls may come from any thread.

    Attributes:
        method: its name in the result.
        networks: what it looks through; None without.
    """

    method: str
    networks: FaceNetworks | None

    def look(self, faces: Sequence[FoundFace], beat: Beat = quiet) -> Sequence[Fit | None]:
        """A first answer to each face, of one photo or of several, all at once; None where the strategy has none.

        `beat` is called at every step.
        """
        ...

    def understand(self, face: FoundFace, guess: Fit | None, clock: Clock, report: Reporter) -> Fit:
        """Theta and mask of a face.

        Args:
            face: which it is.
            guess: what `look` gave for it.
            clock: is told the stages.
            report: is told the stage, the fraction of all that `understand` does and how the face looks so far.

        Raises:
            FitError: it was not understood.
        """
        ...


class NetworkStrategy:
    """The networks' answer."""

    method = "network"

    def __init__(self, networks: FaceNetworks) -> None:
        self.networks: FaceNetworks | None = networks
        self._networks = networks

    def look(self, faces: Sequence[FoundFace], beat: Beat = quiet) -> Sequence[Fit | None]:
        """Theta and mask of each face."""
        return _look(self._networks, faces, beat)

    def understand(self, face: FoundFace, guess: Fit | None, clock: Clock, report: Reporter) -> Fit:
        """The guess, if it is a face, a little nearer to the mean head.

        Raises:
            FitError: it is none.
        """
        assert guess is not None
        check_guess(guess)
        report("looking through the networks", 1.0, guess.preview)
        return dataclasses.replace(guess, state=dataclasses.replace(guess.state, shape=SHAPE_SHARE * guess.state.shape))


class FitStrategy:
    """The fit, from landmarks alone or from the networks' answer.

    Args:
        model: the face model.
        detector: whose landmarks are fitted.
        networks: whose answer is the start; None for none.
        fitter: of the model; several strategies may share one.
    """

    def __init__(
        self, model: FaceModel, detector: LandmarkDetector, networks: FaceNetworks | None = None, fitter: FaceFitter | None = None
    ) -> None:
        self.method = "fit" if networks is None else "refine"
        self.networks = networks
        self._model = model
        self._detector = detector
        self._fitter = fitter or FaceFitter(model)
        self._skills = {} if networks is None else encoder_skills(networks.weights, model)
        self._mask_skill = 0.0 if networks is None else mask_skill(networks.weights)
        self._calibration: DetectorCalibration | None = None
        self._precision: Float[Tensor, "coordinates coordinates"] | None = None

    def look(self, faces: Sequence[FoundFace], beat: Beat = quiet) -> Sequence[Fit | None]:
        """The networks' answers, where there are networks."""
        return [None] * len(faces) if self.networks is None else _look(self.networks, faces, beat)

    def understand(self, face: FoundFace, guess: Fit | None, clock: Clock, report: Reporter) -> Fit:
        """The landmark fit, then EM, both from the guess where there is one.

        Raises:
            FitError: the landmarks or the photo admit no face.
        """
        term, noise = self._landmarks(face)
        known, start = FacePrior.standard(self._model), None
        if guess is not None:
            check_guess(guess)
            if not face.is_users:
                term, noise = self._moved_landmarks(guess) or (term, noise)
            report("looking through the networks", 0.0, guess.preview)
            known, start = self._expected(guess), torch.cat([guess.state.shape, guess.state.expression])
        report("placing the face", 0.02)
        placed, prior = fit_likeliest(self._model, term, camera_priors(face.photo), known.geometry, start, report.beat)
        clock.lap("landmark_fit")
        fit = self._fitter.fit(
            face.photo.pixels, placed, term, noise, prior, report.part(0.1, 1.0), known=known, guess=guess, skill=self._mask_skill
        )
        clock.lap("fit")
        return fit

    def _expected(self, guess: Fit) -> FacePrior:
        """What the networks' answer tells; the face model's own prior where their skill is not known."""

        def prior(name: str, answer: Float[Tensor, "n"]) -> CoefficientPrior:
            skill = self._skills.get(name)
            return CoefficientPrior.standard(len(answer)) if skill is None else skill.prior(answer)

        state = guess.state
        shape, expression = prior("shape", state.shape), prior("expression", state.expression)
        geometry = CoefficientPrior(torch.cat([shape.mean, expression.mean]), torch.cat([shape.spread, expression.spread]))
        return FacePrior(geometry, prior("albedo", state.albedo))

    def _landmarks(self, face: FoundFace) -> tuple[LandmarkTerm, LandmarkNoise]:
        """The face's landmarks as evidence, and their noise."""
        calibration = self._calibration_of(face)
        noise, embedding = calibration.noise, calibration.embedding
        if calibration is self._calibration and self._precision is not None:
            precision = self._precision
        else:
            precision = noise.precision(inflation=NOISE_INFLATION)
            if calibration is self._calibration:
                self._precision = precision
        points = torch.from_numpy(face.detection.points)[embedding.indices]
        return landmark_term(self._model, embedding.points, points, noise.bias, precision, NOISE_INFLATION), noise

    def _moved_landmarks(self, guess: Fit) -> tuple[LandmarkTerm, LandmarkNoise] | None:
        """The points that the networks moved to where they see them, as better evidence than the detector's; None without."""
        branch = None if self.networks is None else self.networks.weights.encoder.branch
        measured = None if branch is None else branch.noise
        if measured is None or guess.landmarks68 is None:
            return None
        noise = measured.turned(guess.crop.angle)
        points = torch.from_numpy(guess.landmarks68)
        hidden = hidden_variance(guess.crop.to_crop(guess.landmarks68), guess.inlier)
        precision = noise.precision(hidden, MOVED_INFLATION)
        return landmark_term(self._model, self._model.landmarks68, points, noise.bias, precision, MOVED_INFLATION), noise

    def _calibration_of(self, face: FoundFace) -> DetectorCalibration:
        if face.is_users:
            embedding = embed_names(self._model, face.detection.names)
            return DetectorCalibration(embedding, independent_noise(embedding))
        if self._calibration is None:
            self._calibration = calibration_for(self._model, self._detector)
        return self._calibration


def _look(networks: FaceNetworks, faces: Sequence[FoundFace], beat: Beat) -> Sequence[Fit | None]:
    return networks.look_at_all([(face.photo.pixels, face.detection.five_points) for face in faces], beat)


def camera_priors(photo: Photo) -> list[CameraPrior]:
    """An uncropped photo by an unknown camera: centred, with a focal length around that of a normal lens, for each usual distance."""
    centre = torch.tensor([photo.width / 2, photo.height / 2], dtype=torch.float64)
    log_focal = math.log(FOCAL_LENGTH_IN_SIDES * max(photo.width, photo.height))
    return [
        CameraPrior(centre, log_focal, LOG_FOCAL_SPREAD, math.log(usual.millimetres), usual.log_spread, usual.share)
        for usual in (PORTRAITS, SELFIES, ACROSS_A_ROOM)
    ]
