"""What each stage computes of one batch: named losses, already weighted, whose sum is descended (FOCUS.md, "Losses" and "Schedule")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from focus_backend import losses
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.decoder import project_landmarks
from focus_backend.networks.recognition import RecognitionNetwork
from focus_backend.rendering.normals import vertex_normals
from train.autoencoder import Parts, Reconstructed, known_landmarks, mask_logits, masked, reconstruct, segment, segment_through
from train.config import LossesConfig
from train.data.batch import FaceBatch
from train.masks import MaskOf


@dataclass(frozen=True)
class StepOutcome:
    """What came of a batch.

    Attributes:
        terms: weighted losses by name; their sum is descended.
        seen: the reconstruction, where one was drawn.
        mask: M on its region.
    """

    terms: dict[str, Float[Tensor, ""]]
    seen: Reconstructed | None = None
    mask: Float[Tensor, "b h w"] | None = None

    @property
    def total(self) -> Float[Tensor, ""]:
        """The loss that is descended."""
        return torch.stack(list(self.terms.values())).sum()


def encoder_step(parts: Parts, config: LossesConfig, batch: FaceBatch, mask_of: MaskOf, *, uses_segmentation: bool = False) -> StepOutcome:
    """R's step: eq 5, 6, 7 and the regulariser, the mask held fixed.

    Args:
        parts: whose encoder learns.
        config: weights and forms of the losses.
        batch: photos.
        mask_of: M of a reconstruction, from S, from the truth or from nothing.
        uses_segmentation: S is trained and frozen; only then is there an outlier area, whose gradient passes through S to the rendering.
    """
    seen = reconstruct(parts, batch)
    with torch.no_grad():
        mask = mask_of(seen)
    weights, theta = config.encoder, seen.theta
    normalise: Literal["mask", "region"] = "mask" if config.differences == "lengths" else "region"
    terms = {
        "pixel": weights.pixel * losses.pixel_loss(seen.photo, seen.rendering, mask, seen.region, normalise=normalise),
        "landmark": weights.landmark * _landmark_loss(seen, parts.frame.size),
        "regulariser": weights.regulariser * losses.regulariser(theta.shape, theta.expression, theta.albedo),
    }
    if weights.perceptual:
        terms["perceptual"] = weights.perceptual * _likeness(parts, seen)
    if weights.outlier_area and uses_segmentation:
        terms["outlier_area"] = weights.outlier_area * losses.outlier_area(segment_through(parts, seen), seen.region)
    return StepOutcome(terms, seen, mask)


def segmentation_step(parts: Parts, config: LossesConfig, batch: FaceBatch) -> StepOutcome:
    """S's step: eq 1 to 4 and the binary loss, R held fixed."""
    with torch.no_grad():
        seen = reconstruct(parts, batch)
    mask = segment(parts, seen)
    weights, is_squared = config.segmentation, config.differences == "squares"
    terms = {
        "area": weights.area * losses.area_loss(mask, seen.region),
        "binary": weights.binary * losses.binary_loss(mask, seen.region, "paper" if is_squared else "released"),
    }
    if weights.neighbour:
        terms["neighbour"] = weights.neighbour * losses.neighbour_loss(
            seen.photo, seen.rendering, mask, seen.region, config.neighbour_window, squared=is_squared
        )
    if weights.difference:
        terms["difference"] = weights.difference * losses.difference_loss(seen.photo, seen.rendering, mask, seen.region)
    if weights.distance or weights.preserve:
        terms |= _perceptual_terms(parts, config, seen, mask)
    return StepOutcome(terms, seen, mask)


def segmentation_start_step(parts: Parts, batch: FaceBatch, target_of: MaskOf) -> StepOutcome:
    """Step 2: S learns a given mask by cross-entropy inside the region, R held fixed."""
    with torch.no_grad():
        seen = reconstruct(parts, batch)
        target = target_of(seen)
    logits = mask_logits(parts, seen)
    mask = logits.detach().sigmoid() * seen.region
    return StepOutcome({"cross_entropy": losses.mask_cross_entropy(logits, target, seen.region)}, seen, mask)


def warm_start_step(parts: Parts, batch: FaceBatch, forms: Mapping[str, Float[Tensor, "n n"]]) -> StepOutcome:
    """Stage 0: theta learnt where it is known, nothing drawn. The shape term is 1 for an encoder that always says the mean face.

    Args:
        parts: whose encoder learns.
        batch: synthetic faces.
        forms: of `error_forms`.
    """
    assert batch.theta is not None
    outputs, true = parts.encode(batch.image, batch.detected), batch.theta
    found, moved = parts.encoder.theta(outputs), parts.encoder.moved_landmarks(outputs)
    shape = found.shape - true.shape
    even = torch.ones(losses.LANDMARKS, device=batch.image.device)
    # Pose and expression bring the points to their places on the shape that was found: seen from near or afar, its own is another one.
    vertices = parts.model.decode_shape(found.shape.detach(), found.expression)
    landmarks = project_landmarks(parts.model, vertices, parts.frame.camera(found.rotation, found.translation))
    terms = {
        # Mostly by what an error does to the face, a little each alike, so that small coefficients and the back of the head are learnt too.
        "shape": 0.8 * _in_form(shape, forms["shape"]) + 0.2 * shape.square().mean(),
        "expression": _in_form(found.expression - true.expression, forms["expression"]),
        "albedo": 0.5 * (found.albedo - true.albedo).square().mean(),
        "lighting": (found.lighting - true.lighting).square().mean(),
        "rotation": 10 * (found.rotation - true.rotation).square().sum(1).mean(),
        "landmark": 1e-2 * losses.landmark_loss(batch.landmarks, landmarks, even, batch.landmark_weight, parts.frame.size),
    }
    if moved.shape[1]:
        # Hundredths of the crop; points that nobody saw stay far off.
        misses = (moved - batch.landmarks[:, None]) * 100 / parts.frame.size
        terms["moved_landmarks"] = 0.5 * moved.shape[1] * smooth_l1_loss(misses, torch.zeros_like(misses), beta=0.5)
    return StepOutcome(terms)


def error_forms(model: FaceModel) -> dict[str, Float[Tensor, "n n"]]:
    """Quadratic forms that measure errors of shape and expression coefficients on the face region; 1 for random coefficients.

    That of shape counts what the NoW protocol does: movement along the surface normal that no similarity transform takes back. That of
    expression counts all movement.
    """
    vertices = model.triangles[model.triangle_in_face].unique()
    normals = vertex_normals(model.mean_shape[None], model.triangles)[0, vertices]
    points = model.mean_shape[vertices] - model.mean_shape[vertices].mean(0)
    axes = torch.eye(3, device=model.device)[:, None]
    similarities = torch.cat([axes.expand(-1, len(points), -1), torch.linalg.cross(axes, points[None]), points[None]])
    across, free = ((value * normals).sum(-1).double() for value in (model.shape_basis[:, vertices], similarities))
    directions = torch.linalg.qr(free.T).Q
    moved = {"shape": across - across @ directions @ directions.T, "expression": model.expression_basis[:, vertices].flatten(1).double()}
    forms = {name: value @ value.T for name, value in moved.items()}
    return {name: (form / form.trace().clamp(min=1e-12)).float() for name, form in forms.items()}


def _in_form(error: Float[Tensor, "b n"], form: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    return ((error @ form) * error).sum(1).mean()


def _landmark_loss(seen: Reconstructed, size: int) -> Float[Tensor, ""]:
    weights = losses.landmark_weights(seen.photo.device)
    return losses.landmark_loss(seen.batch.landmarks, seen.decoded.landmarks, weights, seen.batch.landmark_weight, size)


def _likeness(parts: Parts, seen: Reconstructed) -> Float[Tensor, ""]:
    """Eq 6."""
    network = _recognition(parts)
    with parts.autocast():
        with torch.no_grad():
            of_photo = network.final(seen.batch.image, known_landmarks(seen))
        of_rendering = network.final(masked(seen.rendering), seen.decoded.landmarks)
    return losses.perceptual_loss(of_photo.float(), of_rendering.float())


def _perceptual_terms(
    parts: Parts, config: LossesConfig, seen: Reconstructed, mask: Float[Tensor, "b h w"]
) -> dict[str, Float[Tensor, ""]]:
    """Eq 2 and 4."""
    network, weights = _recognition(parts), config.segmentation
    landmarks = known_landmarks(seen)
    with parts.autocast():
        of_masked_photo = network.shallow(masked(seen.photo, mask), landmarks).float()
        terms = {}
        if weights.distance:
            of_masked_rendering = network.shallow(masked(seen.rendering, mask), seen.decoded.landmarks).float()
            terms["distance"] = weights.distance * losses.distance_loss(of_masked_photo, of_masked_rendering)
        if weights.preserve:
            with torch.no_grad():
                of_photo = network.shallow(seen.batch.image, landmarks).float()
            terms["preserve"] = weights.preserve * losses.preserve_loss(of_masked_photo, of_photo)
    return terms


def _recognition(parts: Parts) -> RecognitionNetwork:
    assert parts.recognition is not None, "checked when the run was set up"
    return parts.recognition
