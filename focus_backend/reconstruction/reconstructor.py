"""The whole pipeline, loaded once and used for many photos: photo in, one `Reconstruction` a face out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from focus_backend.errors import ConfigError, FitError, NoFaceError
from focus_backend.landmarks import DEFAULT_DETECTOR, Detection, LandmarkDetector, create_detector
from focus_backend.landmarks.calibration import DetectorCalibration
from focus_backend.landmarks.calibration_store import calibration_for, independent_noise
from focus_backend.landmarks.user import check_inside, embed_names
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.photo import Photo
from focus_backend.reconstruction.fitting import POOR_NOISE, FaceFitter, Fit
from focus_backend.reconstruction.landmark_fit import LandmarkTerm, fit_landmarks, landmark_term
from focus_backend.reconstruction.result import Reconstruction
from focus_backend.reconstruction.state import CameraPrior
from focus_backend.rendering import Camera, render
from focus_backend.rendering.texture import bake_texture, enlarge_albedo

Progress = Callable[[str, float], None]

TEXTURE_SIZE = 1024
# Photos are taken with anything from a phone at arm's length to a portrait lens: 50 mm on full frame, within a factor of 1.8.
FOCAL_LENGTH_IN_SIDES = 1.4
LOG_FOCAL_SPREAD = 0.6
# Real photos err more than renders.
NOISE_INFLATION = 2.0
FACE_PROBABILITY = 0.5


@dataclass(frozen=True)
class _FoundFace:
    """A face of a photo and how to read its landmarks."""

    detection: Detection
    calibration: DetectorCalibration


class Reconstructor:
    """Reconstructs faces by fitting a face model. Built once with `load`; calls may come from any thread."""

    def __init__(self, model: FaceModel, detector: LandmarkDetector) -> None:
        self.model = model
        self.detector = detector
        self._fitter = FaceFitter(model)
        self._calibration: DetectorCalibration | None = None
        self._precision: Float[Tensor, "coordinates coordinates"] | None = None

    @classmethod
    def load(cls, model: str | Path | FaceModel = "anny", landmarks: str = DEFAULT_DETECTOR, device: str = "cpu") -> Reconstructor:
        """A reconstructor for a face model (name, file or loaded) and a landmark detector by name.

        Raises:
            ModelError: the model cannot be loaded.
            LandmarkError, MissingDependencyError: there is no such detector, or its package or weights are absent.
            ConfigError: the device is not one that fitting works on.
        """
        if device not in ("cpu", "auto"):
            raise ConfigError(f"device {device!r} cannot be used for fitting", "use --device cpu; a GPU serves the networks only")
        loaded = model if isinstance(model, FaceModel) else load_model(model)
        return cls(loaded, create_detector(landmarks))

    def reconstruct(
        self,
        photo: Photo,
        *,
        landmarks: Detection | None = None,
        max_faces: int | None = None,
        progress: Progress | None = None,
    ) -> list[Reconstruction]:
        """The faces of a photo, largest first.

        Args:
            photo: as `read_photo` gives it.
            landmarks: the user's own, for one face; nothing is detected then.
            max_faces: how many faces at most; None for all.
            progress: is told the stage and the fraction of the whole that is done.

        Raises:
            NoFaceError: no face was found.
            LandmarkError: the landmarks do not lie in the photo.
            FitError: no face was understood.
        """
        report = progress or (lambda stage, fraction: None)
        started = time.perf_counter()
        report("finding faces", 0.0)
        faces = self._faces(photo, landmarks)[:max_faces]
        found = time.perf_counter() - started
        results: list[Reconstruction] = []
        failure: FitError | None = None
        for index, face in enumerate(faces):
            begin, share = 0.1 + 0.9 * index / len(faces), 0.9 / len(faces)

            def told(stage: str, fraction: float, begin: float = begin, share: float = share) -> None:
                report(stage, begin + share * fraction)

            try:
                results.append(self._reconstruct_face(photo, face, len(results), found / len(faces), told))
            except FitError as error:
                # One of several faces may be a poster or half cut off; the others are still wanted.
                failure = failure or error
        if not results:
            raise failure or FitError(f"no face of {photo.name} could be fitted", "give landmarks yourself with --landmarks-file")
        report("done", 1.0)
        return results

    def _faces(self, photo: Photo, landmarks: Detection | None) -> list[_FoundFace]:
        if landmarks is not None:
            check_inside(landmarks, photo.width, photo.height)
            embedding = embed_names(self.model, landmarks.names)
            return [_FoundFace(landmarks, DetectorCalibration(embedding, independent_noise(embedding)))]
        detections = self.detector.detect(photo.pixels)
        if not detections:
            raise NoFaceError(
                f"no face was found in {photo.name}", "use a photo with a larger face, or give landmarks with --landmarks-file"
            )
        if self._calibration is None:
            self._calibration = calibration_for(self.model, self.detector)
        return [_FoundFace(detection, self._calibration) for detection in detections]

    def _landmark_term(self, face: _FoundFace) -> LandmarkTerm:
        noise, embedding = face.calibration.noise, face.calibration.embedding
        if face.calibration is self._calibration and self._precision is not None:
            precision = self._precision
        else:
            precision = noise.precision(inflation=NOISE_INFLATION)
            if face.calibration is self._calibration:
                self._precision = precision
        points = torch.from_numpy(face.detection.points)[embedding.indices]
        return landmark_term(self.model, embedding.points, points, noise.bias, precision, NOISE_INFLATION)

    def _reconstruct_face(self, photo: Photo, face: _FoundFace, index: int, detection_time: float, report: Progress) -> Reconstruction:
        timings = {"landmarks": detection_time}
        clock = _Clock(timings)
        prior = camera_prior(photo)
        term = self._landmark_term(face)
        report("placing the face", 0.05)
        start = fit_landmarks(self.model, term, prior)
        clock.lap("landmark_fit")
        fit = self._fitter.fit(
            photo.pixels, start, term, face.calibration.noise, prior, lambda fraction: report("fitting", 0.1 + 0.6 * fraction)
        )
        clock.lap("fit")
        report("drawing", 0.75)
        state = fit.state
        camera = state.camera(prior.principal_point, photo.width, photo.height)
        vertices, albedo = self.model.decode(state.shape.float(), state.expression.float(), state.albedo.float())
        lighting = state.lighting.float()
        rendering, region = draw(self.model, vertices, albedo, lighting, camera)
        face_mask, outlier_mask, probability = photo_masks(fit, region)
        clock.lap("masks_and_rendering")
        texture = bake_texture(photo.pixels, self.model, vertices, camera, lighting, probability, albedo, TEXTURE_SIZE)
        clock.lap("texture")
        return Reconstruction(
            model=self.model,
            photo_name=photo.name,
            photo=photo.pixels,
            face_index=index,
            shape=state.shape.float(),
            expression=state.expression.float(),
            albedo=state.albedo.float(),
            lighting=lighting,
            camera=camera,
            landmarks={"detector": face.detection.detector, "points": face.detection.points, "names": face.detection.names},
            neutral_vertices=self.model.decode_shape(state.shape.float()),
            albedo_texture=enlarge_albedo(self.model, albedo, TEXTURE_SIZE),
            texture=texture,
            face_mask=face_mask,
            outlier_mask=outlier_mask,
            rendering=rendering,
            timings=timings,
            detector=face.detection.detector,
            warnings=(*photo.warnings, *_warnings(fit, face_mask, outlier_mask)),
            photo_sha256=photo.sha256,
            original_size=photo.original_size,
        )


class _Clock:
    """Writes the seconds since the last lap into a dictionary."""

    def __init__(self, laps: dict[str, float]) -> None:
        self._laps, self._last = laps, time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name], self._last = now - self._last, now


def camera_prior(photo: Photo) -> CameraPrior:
    """An uncropped photo by an unknown camera: centred, with a focal length around that of a normal lens."""
    centre = torch.tensor([photo.width / 2, photo.height / 2], dtype=torch.float64)
    return CameraPrior(centre, math.log(FOCAL_LENGTH_IN_SIDES * max(photo.width, photo.height)), LOG_FOCAL_SPREAD)


def photo_masks(
    fit: Fit, region: Bool[np.ndarray, "height width"]
) -> tuple[Bool[np.ndarray, "height width"], Bool[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
    """Face and outlier masks in photo pixels, which share the rendered `region` among them, and the probability of face."""
    height, width = region.shape
    # cv2 puts pixel centres at whole numbers, we put them at +0.5.
    linear = fit.crop.crop_to_photo[:, :2]
    offset = fit.crop.crop_to_photo[:, 2] + linear @ np.full(2, 0.5) - 0.5
    matrix = np.column_stack([linear, offset])

    def to_photo(values: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(values.astype(np.float32), matrix, (width, height), flags=cv2.INTER_LINEAR)

    # At the region's edge only a part of the crop's neighbours lie in it.
    probability = to_photo(fit.inlier) / np.maximum(to_photo(fit.region), 1e-3)
    probability = np.where(region, probability.clip(0, 1), 0).astype(np.float32)
    face = probability > FACE_PROBABILITY
    return face, region & ~face, probability


def draw(
    model: FaceModel,
    vertices: Float[Tensor, "vertices 3"],
    albedo: Float[Tensor, "size size 3"],
    lighting: Float[Tensor, "9 3"],
    camera: Camera,
) -> tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    """The fitted face in the photo's light at photo size, and where it is; only the box around it is rendered."""
    picture = np.zeros((camera.height, camera.width, 3), np.uint8)
    region = np.zeros((camera.height, camera.width), bool)
    places = camera.project(vertices[model.triangles[model.triangle_in_face].flatten()]).numpy()
    left, top = np.clip(np.floor(places.min(0)), 0, [camera.width - 1, camera.height - 1]).astype(int)
    right, bottom = np.clip(np.ceil(places.max(0)), [left + 1, top + 1], [camera.width, camera.height]).astype(int)
    part = camera.resized(int(right - left), int(bottom - top), 1.0, (-float(left), -float(top)))
    drawn = render(model, vertices[None], albedo.clamp(0, 1)[None], lighting[None], part, antialiased=False)
    region[top:bottom, left:right] = drawn.mask[0].numpy()
    picture[top:bottom, left:right] = (drawn.image[0].clamp(0, 1) * 255 + 0.5).byte().numpy()
    return picture, region


def _warnings(fit: Fit, face: np.ndarray, outlier: np.ndarray) -> tuple[str, ...]:
    """What the user should know about a result that may be poor."""
    found = []
    region = face.sum() + outlier.sum()
    if face.sum() < 0.25 * region:
        found.append(f"only {100 * face.sum() / max(1, region):.0f} % of the face is visible: the rest is the model's guess")
    if fit.noise > POOR_NOISE:
        found.append("the fitted colours differ much from the photo: strong light, make-up or a failed fit; look at report.jpg")
    return tuple(found)
