"""The real pipeline: photos in requests through the reconstructor, and its results as arrays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8

from focus_backend.errors import CancelledError, ConfigError, FitError, NoFaceError, PhotoError
from focus_backend.export.bundle import with_texture_size
from focus_backend.landmarks import create_detector
from focus_backend.landmarks.head_pictures import frontal_picture
from focus_backend.landmarks.user_points import landmarks_in, landmarks_of
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.weights import Weights
from focus_backend.photo import Photo, PhotoLimits, photo_from_pixels, read_photo
from focus_backend.photo_paths import printable
from focus_backend.progress import quiet
from focus_backend.reconstruction.fitting import FaceFitter
from focus_backend.reconstruction.method import METHODS, choose_device, chosen_method, misfit_for, weights_for
from focus_backend.reconstruction.network import FaceNetworks
from focus_backend.reconstruction.reconstructor import PhotoTask, Reconstructor
from focus_backend.reconstruction.result import Reconstruction
from focus_backend.reconstruction.strategy import FitStrategy, NetworkStrategy, Strategy
from focus_backend.serving import wire
from focus_backend.serving.config import PipelineConfig
from focus_backend.serving.parts import PARTS, ModelParts, arrays_of, check_parts
from focus_backend.serving.pipeline import Deliver, Job, PipelineInfo, Preview, Watch

# Method, and whether the misfit prior is taken off.
Way: TypeAlias = tuple[str, bool]
# Share of a job's time until its faces are done and only have to be packed.
_RECONSTRUCTED = 0.95


@dataclass(frozen=True)
class _Prepared:
    """A job that can be done.

    Attributes:
        index: its place.
        way: how.
        task: for the reconstructor.
    """

    index: int
    way: Way
    task: PhotoTask


@runtime_checkable
class PhotoReconstructor(Protocol):
    """The part of `Reconstructor` that the pipeline needs.

    Attributes:
        model: the face model.
    """

    model: FaceModel

    def reconstruct_many(self, tasks: Sequence[PhotoTask]) -> Iterator[tuple[int, list[Reconstruction] | Exception]]:
        """The place of each photo as it is done, and its faces or why it failed."""
        ...


class PhotoPipeline:
    """Does requests with reconstructors that share a face model, a detector and weights.

    Args:
        reconstructors: one for each way; the first one's method is the default.
        device: where the networks run.
    """

    def __init__(self, reconstructors: Mapping[Way, PhotoReconstructor], device: str = "cpu") -> None:
        self._reconstructors = reconstructors
        model = next(iter(reconstructors.values())).model
        self._model_parts = ModelParts(model)
        self._model_info = wire.ModelInfo(
            model.name, str(model.metadata.get("sha256", "")), len(model.mean_shape), list(model.expression_names)
        )
        methods = list(dict.fromkeys(method for method, _ in reconstructors))
        self.info = PipelineInfo([self._model_info], methods, list(PARTS), device)

    @classmethod
    def load(cls, config: PipelineConfig) -> PhotoPipeline:
        """The pipeline of a configuration.

        Raises:
            ModelError, LandmarkError, MissingDependencyError, WeightsError: something cannot be loaded.
            ConfigError: the configuration contradicts itself.
        """
        if config.method not in METHODS:
            raise ConfigError(f"there is no method {config.method!r}", f"use one of {', '.join(METHODS)}")
        device = config.device if config.device == "auto" else choose_device(config.device)
        model = load_model(config.model)
        # Requests may ask for a method with networks even where the fit is the default.
        weights = weights_for("auto" if config.method == "fit" else config.method, config.weights, model, device)
        if weights is None and device not in ("cpu", "auto"):
            raise ConfigError(f"device {device!r} cannot be used for fitting", "use --device cpu; a GPU serves the networks only")
        reconstructors = _reconstructors(config, model, weights)
        return cls(reconstructors, "cpu" if weights is None else str(next(weights.encoder.parameters()).device))

    def warm_up(self) -> None:
        """Reconstructs a picture of the mean head, which compiles, loads and allocates what every photo needs."""
        reconstructor = self._reconstructors[self._way(wire.Options())]
        picture = frontal_picture(reconstructor.model)
        for _, outcome in reconstructor.reconstruct_many([PhotoTask(photo_from_pixels(picture.pixels), max_faces=1)]):
            if not isinstance(outcome, Exception):
                arrays_of(outcome, PARTS, self._model_parts, quiet)
            # A detector that does not take a render for a face is no fault; anything else, such as a missing package, is.
            elif not isinstance(outcome, NoFaceError | FitError):
                raise outcome

    def run(self, jobs: Sequence[Job], watches: Sequence[Watch], deliver: Deliver) -> None:
        """Does jobs that came together; those that want the same way share batches of the networks."""
        started = time.monotonic()
        audience = _Audience(jobs, watches, deliver)
        prepared = [found for index, job in enumerate(jobs) for found in self._prepare(index, job, audience)]
        for way in dict.fromkeys(found.way for found in prepared):
            group = [found for found in prepared if found.way == way]
            outcomes = self._reconstructors[way].reconstruct_many([found.task for found in group])
            for place, outcome in outcomes:
                index = group[place].index
                if isinstance(outcome, Exception):
                    audience.end(index, outcome)
                else:
                    self._pack(index, jobs[index], outcome, started, audience)

    def _prepare(self, index: int, job: Job, audience: _Audience) -> list[_Prepared]:
        """The job, ready to be done; nothing when it cannot be."""
        try:
            audience.tell(index, "reading the photo", 0.0)
            options = job.request.options
            check_parts(job.request.parts)
            way, faces = self._way(options), _face_count(options, job.limits)
            _check_texture_size(options)
            photo = _photo_of(job)
            landmarks = None
            if options.landmarks is not None:
                landmarks = landmarks_in(photo, landmarks_of({"points": dict(options.landmarks.points)}, "the request"))
        except Exception as error:
            audience.end(index, error)
            return []
        return [_Prepared(index, way, PhotoTask(photo, landmarks, faces, audience.part(index, _RECONSTRUCTED)))]

    def _way(self, options: wire.Options) -> Way:
        """How a photo is to be reconstructed.

        Raises:
            ConfigError: there is no such method, or none without weights.
        """
        method = options.method if options.method is not None else self.info.methods[0]
        if (method, options.misfit) not in self._reconstructors:
            known = "needs weights that this server has not got" if method in METHODS and method != "auto" else "is not known"
            raise ConfigError(f"the method {method!r} {known}", f"use one of {', '.join(self.info.methods)}")
        return method, options.misfit

    def _pack(self, index: int, job: Job, faces: Sequence[Reconstruction], started: float, audience: _Audience) -> None:
        """Delivers the result of a photo."""

        def beat() -> None:
            audience.tell(index, "packing the result", _RECONSTRUCTED)

        size = job.request.options.texture_size
        try:
            beat()
            scaled = [with_texture_size(face, size) for face in faces]
            arrays = arrays_of(scaled, job.request.parts, self._model_parts, beat)
            beat()
            documents = [wire.Face(place, list(face.warnings), face.to_document()) for place, face in enumerate(scaled)]
        except Exception as error:
            audience.end(index, error)
            return
        result = wire.Result(documents, self._model_info, list(dict.fromkeys(job.request.parts)), time.monotonic() - started)
        audience.end(index, result, arrays)


class _Audience:
    """Those who watch jobs that are done together: whenever one job gets on all of them are told, so that any of them can leave.

    A job whose watch raises is given up: that is delivered at once, and whoever works on it is told when it comes to it.

    Args:
        jobs: that are done together.
        watches: one a job.
        deliver: takes each job's outcome, once.
    """

    def __init__(self, jobs: Sequence[Job], watches: Sequence[Watch], deliver: Deliver) -> None:
        self._watches, self._deliver = watches, deliver
        self._preview_sides = [min(job.request.preview_side, job.limits.preview_side) for job in jobs]
        self._last = dict.fromkeys(range(len(jobs)), ("waiting for the photos before", 0.0))

    def tell(self, index: int, stage: str, fraction: float, preview: Preview | None = None) -> None:
        """Says how far one job is.

        Raises:
            CancelledError: it was given up.
        """
        for other in list(self._last):
            if other != index:
                self._beat(other)
        if index not in self._last:
            raise CancelledError("the request was cancelled")
        self._last[index] = (stage, fraction)
        side = self._preview_sides[index]
        self._watches[index](stage, fraction, None if preview is None or side == 0 else lambda: within(preview(), side))

    def part(self, index: int, end: float) -> Callable[..., None]:
        """The progress of a job's first part, which ends at the fraction `end` of it."""

        def told(stage: str, fraction: float, preview: Preview | None = None) -> None:
            self.tell(index, stage, end * fraction, preview)

        return told

    def end(self, index: int, outcome: wire.Result | Exception, arrays: dict[str, wire.Array] | None = None) -> None:
        """Delivers a job's outcome, unless it was given up."""
        if self._last.pop(index, None) is not None:
            self._deliver(index, outcome, arrays or {})

    def _beat(self, index: int) -> None:
        try:
            self._watches[index](*self._last[index])
        except Exception as error:
            self.end(index, error)


def within(picture: UInt8[np.ndarray, "height width 3"], side: int) -> UInt8[np.ndarray, "_height _width 3"]:
    """The picture, scaled down where its longest side has more than `side` pixels."""
    ratio = side / max(picture.shape[:2])
    if ratio >= 1:
        return picture
    width, height = (max(1, round(length * ratio)) for length in picture.shape[1::-1])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _reconstructors(config: PipelineConfig, model: FaceModel, weights: Weights | None) -> dict[Way, PhotoReconstructor]:
    """One for each method, the default first, and for each the misfit prior left on and taken off."""
    detector, fitter = create_detector(config.landmarks), FaceFitter(model)
    strategies: list[Strategy] = [FitStrategy(model, detector, fitter=fitter)]
    if weights is not None:
        networks = FaceNetworks(weights, model)
        strategies = [FitStrategy(model, detector, networks, fitter), NetworkStrategy(networks), *strategies]
    chosen = chosen_method(config.method, weights)
    strategies.sort(key=lambda strategy: strategy.method != chosen)

    def reconstructor(strategy: Strategy, without_misfit: bool) -> Reconstructor:
        misfit = misfit_for(strategy.method, weights) if without_misfit and strategy.networks is not None else None
        return Reconstructor(model, detector, strategy, misfit)

    return {(strategy.method, chosen): reconstructor(strategy, chosen) for strategy in strategies for chosen in (True, False)}


def _photo_of(job: Job) -> Photo:
    """The photo of a request.

    Raises:
        PhotoError: there is none, or it cannot be used.
    """
    arrays, limits = job.arrays, job.limits
    if ("photo" in arrays) == ("pixels" in arrays):
        raise PhotoError("a request has either the array 'photo' or the array 'pixels'", "send a file's bytes or an upright picture")
    admitted = PhotoLimits(file_bytes=limits.frame_bytes, pixels=limits.pixels, side=limits.side)
    name = printable(job.request.name)
    array = arrays["photo"] if "photo" in arrays else arrays["pixels"]
    is_file = "photo" in arrays
    if array.dtype != "uint8" or len(array.shape) != (1 if is_file else 3) or (not is_file and array.shape[2] != 3):
        raise PhotoError(
            f"{name} is an array of {array.dtype} {list(array.shape)}",
            "send 'photo' as uint8 [bytes] or 'pixels' as uint8 [height width 3]",
        )
    if is_file:
        return read_photo(bytes(array.data), admitted, name)
    return photo_from_pixels(np.frombuffer(array.data, np.uint8).reshape(array.shape), admitted, name)


def _face_count(options: wire.Options, limits: wire.Limits) -> int:
    if options.faces is not None and options.faces < 1:
        raise ConfigError(f"{options.faces} faces were asked for", "ask for at least one, or leave it out")
    return min(limits.faces, options.faces or limits.faces)


def _check_texture_size(options: wire.Options) -> None:
    if options.texture_size is not None and options.texture_size < 1:
        raise ConfigError(f"a texture of {options.texture_size} pixels", "give a positive size")
