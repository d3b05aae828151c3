"""The encoder of R: an aligned crop in, theta of the loaded face model out (FOCUS.md, "Networks")."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.checkpoint import check_names_and_shapes, read_plain_tensors
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.landmark_branch import POINTS, LandmarkBranch
from focus_backend.networks.mobilenet import MobileNet
from focus_backend.networks.resnet import ResNet50
from focus_backend.networks.theta import OutputScales, Theta, ThetaSizes, theta_from_outputs

# Statistics of ImageNet's sRGB values in [0, 1], which its published weights expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
CropSide = Annotated[float, Field(ge=0.5, le=2)]
BACKBONES: dict[str, type[ResNet50] | type[MobileNet]] = {"resnet50": ResNet50, "mobilenet": MobileNet}


class EncoderConfig(BaseModel):
    """What the encoder is made of; the paper's values are the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # "resnet50" as in the paper, or "mobilenet" (V3-Small), some twenty times faster on a CPU.
    backbone: Literal["resnet50", "mobilenet"] = "resnet50"
    # How many times smaller the backbone sees the crop.
    shrink: PositiveInt = 1
    # Whose 68 points are a second input, and how many times larger than the crop the picture is in which they are found; the paper's
    # encoder sees the picture alone.
    landmarks: Literal["none", "mediapipe", "insightface", "face-alignment"] = "none"
    landmark_enlargement: PositiveInt = 2
    # How far off the points from which shape is learnt are made, mm: what shape is told from has to hold for photos too.
    landmark_noise: float = Field(default=0.0, ge=0, le=20)
    # Whether a photo's answer is the mean of those to the crop and to its mirror image, which err apart; wants a model of two like sides.
    mirrored: bool = False
    # Sides of further crops, in sides of the crop, whose answers join that mean.
    further_sides: tuple[CropSide, ...] = ()
    # What the outputs are multiplied by.
    scales: OutputScales = Field(default_factory=OutputScales)


class Encoder(nn.Module):
    """A backbone whose last layer starts at zero, so that the start of training is the start of theta.

    Args:
        config: backbone and scales.
        model: the face model; only its sizes and the start of theta are kept, no tensor of it goes to the state dict.
        image_size: rows and columns of the crops it is meant for, pixels.
    """

    kind: Literal["encoder"] = "encoder"
    mean: Float[Tensor, "3 1 1"]
    deviation: Float[Tensor, "3 1 1"]
    start_translation: Float[Tensor, "3"]

    def __init__(self, config: EncoderConfig, model: FaceModel, image_size: int = 224) -> None:
        super().__init__()
        self.config = config
        self.image_size = image_size
        self.sizes = ThetaSizes.of(model)
        self.backbone = BACKBONES[config.backbone](self.sizes.total)
        nn.init.zeros_(self.backbone.head.weight)
        nn.init.zeros_(self.backbone.head.bias)
        frame = CropFrame.of(model, image_size)
        self.branch = _landmark_branch(config, self.backbone, frame, model) if config.landmarks != "none" else None
        start = frame.start_translation.detach().clone().cpu()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION)[:, None, None], persistent=False)
        self.register_buffer("start_translation", start, persistent=False)

    def forward(self, image: Float[Tensor, "b 3 h w"], landmarks: Float[Tensor, "b 68 2"] | None = None) -> Theta:
        """Theta of aligned crops, in float32 whatever the precision of the backbone.

        Args:
            image: sRGB in [0, 1].
            landmarks: a detector's 68 points, crop pixels; not finite where they are not known. An encoder without that input passes
                them over.
        """
        return self.theta(self.outputs(image, landmarks))

    def theta(self, outputs: Float[Tensor, "b n"]) -> Theta:
        """Theta of bare outputs."""
        return theta_from_outputs(outputs[:, : self.sizes.total], self.sizes, self.start_translation, self.config.scales)

    def moved_landmarks(self, outputs: Float[Tensor, "b n"]) -> Float[Tensor, "b rounds 68 2"]:
        """The 68 points after each round of moving them (crop pixels), of bare outputs; no rounds without landmarks as an input."""
        return outputs[:, self.sizes.total :].unflatten(1, (-1, POINTS, 2)) * self.image_size

    def outputs(self, image: Float[Tensor, "b 3 h w"], landmarks: Float[Tensor, "b 68 2"] | None = None) -> Float[Tensor, "b n"]:
        """The bare outputs, float32: those of theta before scales and start, in the order of `theta_from_outputs`, then moved landmarks."""
        small = image if self.config.shrink == 1 else avg_pool2d(image, self.config.shrink)
        pooled = self.backbone.pooled((small - self.mean) / self.deviation)
        # Half precision would round the pose by more than a millimetre.
        with torch.autocast(image.device.type, enabled=False):
            outputs = self.backbone.head(pooled.float())
            if self.branch is None:
                return outputs
            places = None if landmarks is None else landmarks.float() / self.image_size
            added, moved = self.branch(places, image.float(), small.float(), pooled.float())
            return torch.cat([outputs + added, moved.flatten(1)], 1)


def _landmark_branch(config: EncoderConfig, backbone: ResNet50 | MobileNet, frame: CropFrame, model: FaceModel) -> LandmarkBranch:
    points = model.landmarks68.on(model.mean_shape, model.triangles)
    camera = frame.camera(torch.zeros(1, 3), frame.start_translation[None].cpu())
    usual = camera.project(points[None].cpu())[0] / frame.size
    noise = config.landmark_noise * frame.pixels_per_millimetre / frame.size
    return LandmarkBranch(usual, backbone.feature_size, ThetaSizes.of(model).total, model.shape_size, noise)


def load_imagenet(backbone: ResNet50 | MobileNet, path: str | Path) -> None:
    """Fill a backbone, all but its last layer, with weights under torchvision's names.

    Args:
        backbone: of an encoder.
        path: `.safetensors`, or a `.pth` state dict (nothing in it is unpickled but tensors).

    Raises:
        WeightsError: the file cannot be read, or its names or shapes are not those of this backbone.
    """
    source = Path(path)
    given = {name: value for name, value in read_plain_tensors(source).items() if not name.startswith(backbone.head_prefix)}
    wanted = {name: value for name, value in backbone.state_dict().items() if not name.startswith(backbone.head_prefix)}
    # Files from before torch counted batches lack these; they matter to no result.
    counts = {name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")}
    given = counts | given
    remedy = f"give ImageNet weights of torchvision's {'resnet50' if isinstance(backbone, ResNet50) else 'mobilenet_v3_small'}"
    check_names_and_shapes(f"the file {source}", given, wanted, remedy)
    backbone.load_state_dict(given, strict=False)
