"""The trained networks on the faces of a photo: encoder, decoder and segmentation (FOCUS.md, "Networks")."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from focus_backend.errors import FitError
from focus_backend.face_crop import FaceCrop, crop_face
from focus_backend.landmarks.crop_landmarks import CropLandmarks
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.decoder import decode
from focus_backend.networks.encoder import EncoderConfig
from focus_backend.networks.frame import CropFrame, CropPlace
from focus_backend.networks.mirror import FaceMirror
from focus_backend.networks.theta import Theta
from focus_backend.networks.weights import Weights
from focus_backend.progress import Beat, quiet
from focus_backend.reconstruction.fitting import Fit
from focus_backend.reconstruction.landmark_fit import FARTHEST
from focus_backend.reconstruction.photometric_fit import LEAST_PIXELS, noise_level
from focus_backend.reconstruction.state import FaceState

# Faces, and pictures of faces, that go through the networks at once: some 100 MB each with paper-size networks.
BATCH = 8
# Millimetres; a head nearer than this would reach behind the camera.
NEAREST = 300.0
REMEDY = "check the landmarks, or use --method fit"


class FaceNetworks:
    """Looks at faces through trained networks; reusable, holds nothing of a photo.

    Args:
        weights: networks, on the device they are to run on.
        model: their face model, on the CPU, where everything but the networks runs.
    """

    def __init__(self, weights: Weights, model: FaceModel) -> None:
        self.weights = weights
        self._model = model
        self._frame = CropFrame.of(model, weights.image_size)
        self._landmarks = _landmarks_of(weights.encoder.config, model)
        self._mirror = FaceMirror.of(model) if weights.encoder.config.mirrored else None
        self._sides = (1.0, *weights.encoder.config.further_sides)
        self._device = next(weights.encoder.parameters()).device

    def look(self, photo: UInt8[np.ndarray, "height width 3"], five_points: Sequence[Float[np.ndarray, "5 2"]]) -> list[Fit]:
        """Theta and mask of each face, not yet checked; its five points (photo pixels) say where it is.

        Raises:
            PhotoError: the five points of a face have no finite place.
        """
        return self.look_at_all([(photo, points) for points in five_points])

    def look_at_all(
        self, faces: Sequence[tuple[UInt8[np.ndarray, "_height _width 3"], Float[np.ndarray, "5 2"]]], beat: Beat = quiet
    ) -> list[Fit]:
        """Theta and mask of faces in any photos, each the photo and the five points (photo pixels) that say where the face is in it.

        Faces share batches, whose size may change the last bits of the numbers.

        Args:
            faces: photo and five points of each.
            beat: called at every step.

        Raises:
            PhotoError: the five points of a face have no finite place.
        """
        places = [self._frame.place(points) for _, points in faces]
        crops = [self._crops(photo, place) for (photo, _), place in zip(faces, places, strict=True)]
        landmarks = [self._find_landmarks(photo, place, beat) for (photo, _), place in zip(faces, places, strict=True)]
        sizes = [(photo.shape[1], photo.shape[0]) for photo, _ in faces]
        batches = [slice(start, start + BATCH) for start in range(0, len(crops), BATCH)]
        return [fit for batch in batches for fit in self._look_at(crops[batch], landmarks[batch], sizes[batch], beat)]

    def _crops(self, photo: UInt8[np.ndarray, "height width 3"], place: CropPlace) -> list[FaceCrop]:
        """The crop, and those of further sides."""
        return [self._crop(photo, place._replace(side=factor * place.side)) for factor in self._sides]

    def _crop(self, photo: UInt8[np.ndarray, "height width 3"], place: CropPlace, enlargement: int = 1) -> FaceCrop:
        return crop_face(photo, place.centre, place.side, enlargement * self._frame.size, place.angle)

    def _find_landmarks(self, photo: UInt8[np.ndarray, "height width 3"], place: CropPlace, beat: Beat) -> Float[Tensor, "68 2"]:
        """The 68 points on the crop, as the encoder learnt to see them; not a number where it wants none or none are found."""
        found = None
        if self._landmarks is not None:
            beat()
            branch, enlargement = self.weights.encoder.branch, self.weights.encoder.config.landmark_enlargement
            assert branch is not None
            picture = self._crop(photo, place, enlargement).pixels
            found = self._landmarks.find(picture, branch.usual.cpu().numpy() * len(picture))
        return torch.full((68, 2), math.nan) if found is None else torch.from_numpy(found).float() / enlargement

    @torch.no_grad()
    def _look_at(
        self, looks: Sequence[list[FaceCrop]], landmarks: list[Float[Tensor, "68 2"]], photo_sizes: list[tuple[int, int]], beat: Beat
    ) -> list[Fit]:
        """One batch through encoder, decoder and segmentation, which sees the rendering as in training: black outside the region.

        Args:
            looks: of each face the crop, then those of further sides.
            landmarks: of each face, pixels of the crop.
            photo_sizes: columns and rows.
            beat: called at every step.
        """
        beat()
        images = [_pictures(crops) for crops in zip(*looks, strict=True)]
        crops, image = [crops[0] for crops in looks], images[0]
        theta, moved = self._encode(images, torch.stack(landmarks))
        # Points that nobody saw were moved from where they usually are: they are no evidence.
        seen = [None if bool(first.isnan().any()) else points.double().numpy() for points, first in zip(moved, landmarks, strict=True)]
        beat()
        drawn = decode(self._model, self._frame, theta, background=image.permute(0, 2, 3, 1).contiguous()).rendering
        region = drawn.mask & torch.from_numpy(np.stack([crop.is_inside for crop in crops]))
        beat()
        mask = self._segment(drawn.image * region[..., None], image) * region
        beat()
        found = zip(crops, photo_sizes, mask, region, drawn.image, seen, strict=True)
        return [self._fit_of(theta[index : index + 1], *face) for index, face in enumerate(found)]

    def _encode(self, images: list[Float[Tensor, "b 3 h w"]], landmarks: Float[Tensor, "b 68 2"]) -> tuple[Theta, Float[Tensor, "b 68 2"]]:
        """Theta and the moved points (crop pixels; those given where none are moved), in the mean of all sides and their mirror images."""
        count, middle = len(landmarks), self._frame.size / 2
        factor = torch.tensor(self._sides).repeat_interleave(count)
        seen = (landmarks.repeat(len(images), 1, 1) - middle) / factor[:, None, None] + middle
        thetas, points = [], []
        for theta, moved in self._encode_both(torch.cat(images), seen):
            translation = self._frame.rescaled(theta.rotation, theta.translation, factor)
            thetas.append(dataclasses.replace(theta, translation=translation))
            points.append((moved - middle) * factor[:, None, None] + middle)
        means = {name: value.unflatten(0, (-1, count)).mean(0) for name, value in vars(Theta.cat(thetas)).items()}
        return Theta(**means), torch.cat(points).unflatten(0, (-1, count)).mean(0)

    def _encode_both(
        self, image: Float[Tensor, "b 3 h w"], landmarks: Float[Tensor, "b 68 2"]
    ) -> list[tuple[Theta, Float[Tensor, "b 68 2"]]]:
        """The answers to pictures and, where that is wanted, to their mirror images."""
        if self._mirror is None:
            return [self._encode_all(image, landmarks)]
        count, width = image.shape[0], image.shape[-1]
        both = torch.cat([landmarks, self._mirror.landmarks(landmarks, width)])
        theta, moved = self._encode_all(torch.cat([image, image.flip(-1)]), both)
        mirrored = self._mirror.theta(theta[count:]), self._mirror.landmarks(moved[count:], width)
        return [(theta[:count], moved[:count]), mirrored]

    def _encode_all(self, image: Float[Tensor, "b 3 h w"], landmarks: Float[Tensor, "b 68 2"]) -> tuple[Theta, Float[Tensor, "b 68 2"]]:
        """The answers to pictures in batches, which take far less time than one picture after the other."""
        answers = [self._encode_batch(*batch) for batch in zip(image.split(BATCH), landmarks.split(BATCH), strict=True)]
        return Theta.cat([theta for theta, _ in answers]), torch.cat([moved for _, moved in answers])

    def _encode_batch(self, image: Float[Tensor, "b 3 h w"], landmarks: Float[Tensor, "b 68 2"]) -> tuple[Theta, Float[Tensor, "b 68 2"]]:
        encoder = self.weights.encoder
        outputs = encoder.outputs(image.to(self._device), landmarks.to(self._device))
        moved = encoder.moved_landmarks(outputs).cpu()
        return encoder.theta(outputs).to("cpu"), moved[:, -1] if moved.shape[1] else landmarks

    def _segment(self, rendering: Float[Tensor, "b h w 3"], image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
        """M; all face where no segmentation network was trained."""
        segmentation = self.weights.segmentation
        if segmentation is None:
            return torch.ones(rendering.shape[:3])
        return segmentation(rendering.permute(0, 3, 1, 2).to(self._device), image.to(self._device)).cpu()

    def _fit_of(
        self,
        theta: Theta,
        crop: FaceCrop,
        photo_size: tuple[int, int],
        inlier: Float[Tensor, "h w"],
        region: Bool[Tensor, "h w"],
        colours: Float[Tensor, "h w 3"],
        landmarks: Float[np.ndarray, "68 2"] | None,
    ) -> Fit:
        """One face of a batch in the photo: M on the rendered region, and the crop's view as one of the whole photo."""
        camera = self._frame.photo_camera(theta.rotation[0].double(), theta.translation[0].double(), crop, *photo_size)
        state = FaceState(
            shape=theta.shape[0].double(),
            expression=theta.expression[0].double(),
            albedo=theta.albedo[0].double(),
            lighting=self._frame.photo_lighting(theta.lighting[0].double(), crop),
            rotation=camera.rotation,
            translation=camera.translation,
            log_focal=camera.focal_length.log(),
        )
        residual = torch.from_numpy(crop.pixels).float() / 255 - colours
        noise = noise_level(residual[region], inlier[region]) if bool(region.any()) else 1.0
        in_photo = None if landmarks is None else crop.to_photo(landmarks)
        return Fit(state, inlier.numpy(), region.numpy(), crop, noise, camera.principal_point, colours.numpy(), in_photo)


def _pictures(crops: Sequence[FaceCrop]) -> Float[Tensor, "b 3 h w"]:
    """sRGB in [0, 1]."""
    return (torch.from_numpy(np.stack([crop.pixels for crop in crops])).float() / 255).permute(0, 3, 1, 2).contiguous()


def _landmarks_of(config: EncoderConfig, model: FaceModel) -> CropLandmarks | None:
    return None if config.landmarks == "none" else CropLandmarks(model, config.landmarks)


def check_guess(guess: Fit) -> None:
    """Whether the networks' answer is a face in the photo.

    Raises:
        FitError: it is not finite, not in front of the camera, or not in the photo.
    """
    state = guess.state
    values = (state.shape, state.expression, state.albedo, state.lighting, state.rotation, state.translation, guess.principal_point)
    is_finite = all(bool(torch.isfinite(value).all()) for value in values) and bool(np.isfinite(guess.inlier).all())
    if not is_finite or not -FARTHEST < float(state.translation[2]) < -NEAREST:
        raise FitError("the networks found no face in front of the camera", REMEDY)
    if guess.region.sum() < LEAST_PIXELS:
        raise FitError("the networks found no face inside the photo", REMEDY)
