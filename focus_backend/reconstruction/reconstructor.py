"""The whole pipeline, loaded once and used for many photos: photo in, one `Reconstruction` a face out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from focus_backend.errors import ConfigError, FitError, NoFaceError
from focus_backend.landmarks import DEFAULT_DETECTOR, Detection, LandmarkDetector, create_detector
from focus_backend.landmarks.user import check_inside
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.photo import Photo
from focus_backend.reconstruction.fitting import POOR_NOISE, Fit
from focus_backend.reconstruction.method import misfit_for, weights_for
from focus_backend.reconstruction.misfit import apply_misfit
from focus_backend.reconstruction.network import FaceNetworks
from focus_backend.reconstruction.result import Reconstruction
from focus_backend.reconstruction.strategy import Clock, FitStrategy, FoundFace, NetworkStrategy, Progress, Strategy
from focus_backend.rendering import Camera, render
from focus_backend.rendering.texture import bake_texture, enlarge_albedo

TEXTURE_SIZE = 1024
FACE_PROBABILITY = 0.5


class Reconstructor:
    """Reconstructs faces with a face model. Built once with `load`; calls may come from any thread.

    Args:
        model: the face model, on the CPU.
        detector: finds the faces.
        strategy: how they are understood; the fit by default.
        misfit: E_MP of eq 11, model space, mm, which is taken off neutral faces; None for none.
    """

    def __init__(
        self,
        model: FaceModel,
        detector: LandmarkDetector,
        strategy: Strategy | None = None,
        misfit: Float[Tensor, "v 3"] | None = None,
    ) -> None:
        self.model = model
        self.detector = detector
        self.strategy = strategy or FitStrategy(model, detector)
        self._misfit = misfit

    @classmethod
    def load(
        cls,
        model: str | Path | FaceModel = "anny",
        landmarks: str = DEFAULT_DETECTOR,
        device: str = "cpu",
        method: str = "auto",
        weights: str | Path | None = None,
        misfit: bool = True,
    ) -> Reconstructor:
        """A reconstructor for a face model, a landmark detector and a method.

        Args:
            model: name, file, or loaded.
            landmarks: the detector's name.
            device: of the networks: "auto", "cpu", "cuda", ...; everything else runs on the CPU.
            method: "fit" without networks, "network" for their answer alone, "refine" for the fit from it; "auto" is "refine" where there
                are weights and "fit" where there are none.
            weights: name or folder; those that come with the package by default.
            misfit: take the misfit prior off, if the weights have one that was made with this method.

        Raises:
            ModelError: the model cannot be loaded.
            LandmarkError, MissingDependencyError: there is no such detector, or its package or weights are absent.
            ConfigError: there is no such method, or it does not work on the device or with weights.
            WeightsError: the method needs weights and there are none, or they are damaged or for another face model.
        """
        loaded = model if isinstance(model, FaceModel) else load_model(model)
        found = weights_for(method, weights, loaded, device)
        if found is None and device not in ("cpu", "auto"):
            raise ConfigError(f"device {device!r} cannot be used for fitting", "use --device cpu; a GPU serves the networks only")
        detector = create_detector(landmarks)
        networks = None if found is None else FaceNetworks(found, loaded)
        strategy: Strategy = FitStrategy(loaded, detector, networks)
        if method == "network" and networks is not None:
            strategy = NetworkStrategy(networks)
        return cls(loaded, detector, strategy, misfit_for(strategy.method, found) if misfit else None)

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
        timings: dict[str, float] = {}
        clock = Clock(timings)
        report("finding faces", 0.0)
        faces = self._faces(photo, landmarks)[:max_faces]
        clock.lap("landmarks")
        guesses = self.strategy.look(photo, faces)
        if self.strategy.networks is not None:
            clock.lap("networks")
        shared = {stage: seconds / len(faces) for stage, seconds in timings.items()}
        results: list[Reconstruction] = []
        failure: FitError | None = None
        for index, (face, guess) in enumerate(zip(faces, guesses, strict=True)):
            begin, share = 0.1 + 0.9 * index / len(faces), 0.9 / len(faces)

            def told(stage: str, fraction: float, begin: float = begin, share: float = share) -> None:
                report(stage, begin + share * fraction)

            try:
                timings = dict(shared)
                clock = Clock(timings)
                fit = self.strategy.understand(photo, face, guess, clock, told)
                results.append(self._finish(photo, face, fit, len(results), timings, clock, told))
            except FitError as error:
                # One of several faces may be a poster or half cut off; the others are still wanted.
                failure = failure or error
        if not results:
            raise failure or FitError(f"no face of {photo.name} could be fitted", "give landmarks yourself with --landmarks-file")
        report("done", 1.0)
        return results

    def _faces(self, photo: Photo, landmarks: Detection | None) -> list[FoundFace]:
        if landmarks is not None:
            check_inside(landmarks, photo.width, photo.height)
            return [FoundFace(landmarks, is_users=True)]
        detections = self.detector.detect(photo.pixels)
        if not detections:
            raise NoFaceError(
                f"no face was found in {photo.name}", "use a photo with a larger face, or give landmarks with --landmarks-file"
            )
        return [FoundFace(detection, is_users=False) for detection in detections]

    def _finish(
        self, photo: Photo, face: FoundFace, fit: Fit, index: int, timings: dict[str, float], clock: Clock, report: Progress
    ) -> Reconstruction:
        """Masks, pictures and corrected geometry of a face that was understood; the same for every strategy."""
        report("drawing", 0.75)
        state = fit.state
        camera = state.camera(fit.principal_point, photo.width, photo.height)
        vertices, albedo = self.model.decode(state.shape.float(), state.expression.float(), state.albedo.float())
        lighting = state.lighting.float()
        rendering, region = draw(self.model, vertices, albedo, lighting, camera)
        face_mask, outlier_mask, probability = photo_masks(fit, region)
        clock.lap("masks_and_rendering")
        texture = bake_texture(photo.pixels, self.model, vertices, camera, lighting, probability, albedo, TEXTURE_SIZE)
        clock.lap("texture")
        networks = self.strategy.networks
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
            neutral_vertices=self._neutral(state.shape.float()),
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
            method=self.strategy.method,
            weights_sha256=networks.weights.sha256 if networks is not None else None,
            misfit=self._misfit is not None,
        )

    def _neutral(self, shape: Float[Tensor, "shape"]) -> Float[Tensor, "vertices 3"]:
        """The face without expression, mm, model space, corrected where there is a misfit prior."""
        neutral = self.model.decode_shape(shape)
        return neutral if self._misfit is None else apply_misfit(neutral, self._misfit)


def photo_masks(
    fit: Fit, region: Bool[np.ndarray, "height width"]
) -> tuple[Bool[np.ndarray, "height width"], Bool[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
    """Face and outlier masks in photo pixels, which share the rendered `region` among them, and the probability of face."""
    inlier = fit.inlier_on(np.eye(2, 3), *region.shape)
    probability = np.where(region, inlier.clip(min=0), 0).astype(np.float32)
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
