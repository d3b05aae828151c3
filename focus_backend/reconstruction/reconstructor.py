"""The whole pipeline, loaded once and used for many photos: photo in, one `Reconstruction` a face out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from focus_backend.errors import CancelledError, ConfigError, FitError, NoFaceError
from focus_backend.face_crop import crop_around
from focus_backend.landmarks import DEFAULT_DETECTOR, Detection, LandmarkDetector, create_detector
from focus_backend.landmarks.user import check_inside
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.photo import Photo
from focus_backend.progress import Beat, Progress, Reporter
from focus_backend.reconstruction.fitting import CROP_MARGIN, FINE, POOR_NOISE, Fit
from focus_backend.reconstruction.method import chosen_method, misfit_for, weights_for
from focus_backend.reconstruction.misfit import apply_misfit
from focus_backend.reconstruction.network import FaceNetworks
from focus_backend.reconstruction.result import Reconstruction
from focus_backend.reconstruction.strategy import Clock, FitStrategy, FoundFace, NetworkStrategy, Strategy
from focus_backend.rendering import Camera, render
from focus_backend.rendering.texture import bake_texture, enlarge_albedo

TEXTURE_SIZE = 1024
FACE_PROBABILITY = 0.5


@dataclass(frozen=True)
class PhotoTask:
    """A photo whose faces are wanted; the arguments of `Reconstructor.reconstruct`."""

    photo: Photo
    landmarks: Detection | None = None
    max_faces: int | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class _FoundPhoto:
    """A photo whose faces are found.

    Attributes:
        photo: where they are.
        faces: those to understand, largest first.
        report: the photo's progress.
        timings: seconds spent so far, as one face's share.
    """

    photo: Photo
    faces: list[FoundFace]
    report: Reporter
    timings: dict[str, float]


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
            method: "fit" without networks, "network" for their answer alone, "refine" for the fit from it; "auto" is what the
                weights recommend, "refine" if nothing, and "fit" where there are none.
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
        chosen = chosen_method(method, found)
        detector = create_detector(landmarks)
        networks = None if found is None or chosen == "fit" else FaceNetworks(found, loaded)
        strategy: Strategy = FitStrategy(loaded, detector, networks)
        if chosen == "network" and networks is not None:
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
            progress: is told the stage, the fraction of the whole that is done and how a face looks; what it raises ends the work.

        Raises:
            NoFaceError: no face was found.
            LandmarkError: the landmarks do not lie in the photo.
            FitError: no face was understood.
        """
        found = self._find(PhotoTask(photo, landmarks, max_faces), Reporter(progress))
        (guesses,) = self._look([found], found.report.beat)
        return self._complete(found, guesses)

    def reconstruct_many(self, tasks: Sequence[PhotoTask]) -> Iterator[tuple[int, list[Reconstruction] | Exception]]:
        """The faces of several photos, each handed over as soon as it is done: its place in `tasks`, and its faces or why it failed.

        The networks look at the faces of all photos in shared batches, whose size may change the last bits of the numbers. A photo's
        failure, and what its progress raises, is its own.
        """
        found: dict[int, _FoundPhoto] = {}
        for index, task in enumerate(tasks):
            report = Reporter(task.progress)
            try:
                found[index] = self._find(task, report)
            except Exception as error:  # whatever is wrong with one photo must not cost the others
                yield index, error
        guesses, given_up = self._look_together(found)
        for index in list(found):
            photo = found.pop(index)
            if index in given_up:
                yield index, given_up.pop(index)
                continue
            try:
                seen = guesses.pop(index) if guesses else self._look([photo], photo.report.beat)[0]
                results = self._complete(photo, seen)
            except Exception as error:
                yield index, error
            else:
                yield index, results

    def _find(self, task: PhotoTask, report: Reporter) -> _FoundPhoto:
        """The faces that are to be understood.

        Raises:
            NoFaceError, LandmarkError: as `reconstruct`.
        """
        timings: dict[str, float] = {}
        clock = Clock(timings)
        report("finding faces", 0.0)
        faces = self._faces(task.photo, task.landmarks, report.beat)[: task.max_faces]
        clock.lap("landmarks")
        report("finding faces", 0.08, lambda: _face_of(faces[0]))
        return _FoundPhoto(task.photo, faces, report, {stage: seconds / len(faces) for stage, seconds in timings.items()})

    def _look_together(self, found: Mapping[int, _FoundPhoto]) -> tuple[dict[int, Sequence[Fit | None]], dict[int, Exception]]:
        """What the strategy sees in each photo, and what the progress of photos raised meanwhile.

        Nothing is seen when looking fails: one photo is to blame, but nobody knows which, so each has to be looked at by itself.
        """
        given_up: dict[int, Exception] = {}

        def beat() -> None:
            for index in found.keys() - given_up.keys():
                given_up.update(_failure_of(index, found[index].report))
            if len(given_up) == len(found):
                raise CancelledError("every photo was given up")

        try:
            return dict(zip(found, self._look(list(found.values()), beat), strict=True)), given_up
        except Exception:
            return {}, given_up

    def _look(self, found: Sequence[_FoundPhoto], beat: Beat) -> list[Sequence[Fit | None]]:
        """What the strategy sees in each photo before it understands a face."""
        beat()
        timings: dict[str, float] = {}
        clock = Clock(timings)
        faces = [face for photo in found for face in photo.faces]
        guesses = iter(self.strategy.look(faces, beat))
        if self.strategy.networks is not None:
            clock.lap("networks")
        for photo in found:
            photo.timings.update({stage: seconds / len(faces) for stage, seconds in timings.items()})
        return [list(itertools.islice(guesses, len(photo.faces))) for photo in found]

    def _complete(self, found: _FoundPhoto, guesses: Sequence[Fit | None]) -> list[Reconstruction]:
        """Every face that can be understood, largest first.

        Raises:
            FitError: none could.
        """
        results: list[Reconstruction] = []
        failure: FitError | None = None
        for index, (face, guess) in enumerate(zip(found.faces, guesses, strict=True)):
            begin, share = 0.1 + 0.9 * index / len(found.faces), 0.9 / len(found.faces)
            try:
                results.append(
                    self._reconstruct_face(face, guess, len(results), dict(found.timings), found.report.part(begin, begin + share))
                )
            except FitError as error:
                # One of several faces may be a poster or half cut off; the others are still wanted.
                failure = failure or error
        if not results:
            problem = f"no face of {found.photo.name} could be fitted"
            raise failure or FitError(problem, "give landmarks yourself with --landmarks-file")
        found.report("done", 1.0)
        return results

    def _faces(self, photo: Photo, landmarks: Detection | None, beat: Beat) -> list[FoundFace]:
        if landmarks is not None:
            check_inside(landmarks, photo.width, photo.height)
            return [FoundFace(photo, landmarks, is_users=True)]
        detections = self.detector.detect(photo.pixels, beat)
        if not detections:
            raise NoFaceError(
                f"no face was found in {photo.name}", "use a photo with a larger face, or give landmarks with --landmarks-file"
            )
        return [FoundFace(photo, detection, is_users=False) for detection in detections]

    def _reconstruct_face(
        self, face: FoundFace, guess: Fit | None, index: int, timings: dict[str, float], report: Reporter
    ) -> Reconstruction:
        clock = Clock(timings)
        report("looking at a face", 0.0, lambda: _face_of(face))
        fit = self.strategy.understand(face, guess, clock, report.part(0.0, 0.85))
        return self._finish(face, fit, index, timings, clock, report)

    def _finish(self, face: FoundFace, fit: Fit, index: int, timings: dict[str, float], clock: Clock, report: Reporter) -> Reconstruction:
        """Masks, pictures and corrected geometry of a face that was understood; the same for every strategy."""
        report("drawing", 0.85)
        photo, state = face.photo, fit.state
        camera = state.camera(fit.principal_point, photo.width, photo.height)
        vertices, albedo = self.model.decode(state.shape.float(), state.expression.float(), state.albedo.float())
        lighting = state.lighting.float()
        rendering, region = draw(self.model, vertices, albedo, lighting, camera)
        report.beat()
        face_mask, outlier_mask, probability = photo_masks(fit, region)
        clock.lap("masks_and_rendering")
        report("making the texture", 0.88)
        texture = bake_texture(photo.pixels, self.model, vertices, camera, lighting, probability, albedo, TEXTURE_SIZE, report.beat)
        clock.lap("texture")
        report("making the texture", 0.98)
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


def _failure_of(index: int, report: Reporter) -> dict[int, Exception]:
    """What the progress of a photo raises, by the photo's place; empty when it raises nothing."""
    try:
        report.beat()
    except Exception as error:
        return {index: error}
    return {}


def _face_of(face: FoundFace) -> UInt8[np.ndarray, "size size 3"]:
    """The part of the photo that the fit looks at."""
    return crop_around(face.photo.pixels, face.detection.points, FINE, CROP_MARGIN).pixels


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
