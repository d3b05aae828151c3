"""Our own recognition network, trained on people that do not exist: identities of the face model's prior, photographed again and again.

The network has to know a face in every form in which equations 2, 4 and 6 show it: as a photo with occluders, as the plain render of the
decoder, and cut out by a mask. A batch holds all three. Two tasks teach it: a classifier with a margin over all identities asks who each
is, and, since these people are known to the last number, a linear map of the embedding has to tell their main coefficients. The second
learns from few pictures, and makes alike faces close.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from focus_backend.errors import ConfigError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.checkpoint import save_network
from focus_backend.networks.decoder import decode
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.recognition import Architecture, RecognitionConfig, RecognitionNetwork
from train.data.batch import FaceBatch

Share = Annotated[float, Field(ge=0, le=1)]
# Called with the step and what there is to say of it.
Report = Callable[[int, Mapping[str, float]], None]
# Added to the seed: people that the network is tested on must not be those it was trained on.
_HELD_OUT = 7919


class RecognitionTraining(BaseModel):
    """How our recognition network is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Face model that the people come from: a name or a file.
    model: str = "anny"
    architecture: Architecture = "small"
    identities: Annotated[int, Field(ge=2)] = 4000
    steps: Annotated[int, Field(ge=1)] = 20_000
    batch_size: Annotated[int, Field(ge=2)] = 64
    # Pixels of the crops; the network aligns them to 112.
    image_size: Annotated[int, Field(ge=32)] = 160
    # AdamW, warmed up and then lowered along half a cosine.
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 5e-3
    gradient_norm: Annotated[float, Field(gt=0)] = 5.0
    seed: int = 0
    # Margin of an angle (arcface, radians) or of its cosine (cosface), grown from zero over the first share of the steps.
    margin_of: Literal["arcface", "cosface"] = "cosface"
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.2
    margin_warmup: Share = 0.4
    # Length that embeddings and class centres are compared at.
    scale: Annotated[float, Field(gt=0)] = 24.0
    # Weights of the two tasks, and along how many principal axes of shape and of albedo the coefficients are asked.
    classification: Annotated[float, Field(ge=0)] = 0.2
    coefficients: Annotated[float, Field(ge=0)] = 1.0
    shape_axes: Annotated[int, Field(ge=1)] = 24
    albedo_axes: Annotated[int, Field(ge=1)] = 12
    # Distinct pictures, drawn at the start and shown in turn, for devices that draw slower than they learn; 0: every picture is new.
    # One of 160 pixels takes 0.1 MB of memory.
    pictures: Annotated[int, Field(ge=0)] = 0
    # Shares of each batch: plain renders instead of pictures; pictures of either sort cut out by a mask.
    render_share: Share = 0.35
    masked_share: Share = 0.3
    # Error of the landmarks, standard deviation as a share of the crop.
    landmark_noise: Annotated[float, Field(ge=0)] = 0.01
    # Spread of people in standard deviations of the prior.
    shape_spread: Annotated[float, Field(gt=0)] = 1.0
    albedo_spread: Annotated[float, Field(gt=0)] = 0.7
    # People for the test, and pictures of each.
    held_out_identities: Annotated[int, Field(ge=2)] = 100
    held_out_pictures: Annotated[int, Field(ge=2)] = 6
    report_every: Annotated[int, Field(ge=1)] = 50


@runtime_checkable
class PhotographsPeople(Protocol):
    """What training needs of `train.data.synthetic.SyntheticFaces`."""

    def faces_of(self, shape: Float[Tensor, "b shape"], albedo: Float[Tensor, "b albedo"], step: int) -> FaceBatch:
        """New photos of given people, one each, with their theta and mask."""
        ...


class People:
    """Identities of a face model's prior, the same for the same seed.

    Attributes:
        shape, albedo: standard deviations, a row a person.
    """

    def __init__(self, model: FaceModel, count: int, config: RecognitionTraining, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        shape = torch.randn(count, model.shape_size, generator=random) * config.shape_spread
        albedo = torch.randn(count, model.albedo_size, generator=random).clamp(-2.5, 2.5) * config.albedo_spread
        self.shape, self.albedo = shape.to(model.device), albedo.to(model.device)

    def __len__(self) -> int:
        return len(self.shape)

    def coordinates(self, model: FaceModel, config: RecognitionTraining) -> Float[Tensor, "people axes"]:
        """What faces differ in most: positions along the principal axes of shape (space) and of albedo (colour), unit spread."""
        shape = self.shape / config.shape_spread @ _principal_axes(model.shape_basis.flatten(1), config.shape_axes)
        albedo = self.albedo / config.albedo_spread @ _principal_axes(model.albedo_basis.flatten(1), config.albedo_axes)
        return torch.cat([shape, albedo], 1)


class Pictures(NamedTuple):
    """Faces as the losses will show them; whole, or each value of a picture in a byte.

    Attributes:
        image: sRGB in [0, 1].
        mask: what of the face is seen, 0 to 1.
        landmarks: the 68 points, crop pixels.
    """

    image: Float[Tensor, "b 3 h w"] | UInt8[Tensor, "b 3 h w"]
    mask: Float[Tensor, "b h w"] | UInt8[Tensor, "b h w"]
    landmarks: Float[Tensor, "b 68 2"]

    def packed(self) -> Pictures:
        """In bytes."""
        return Pictures((self.image * 255).round().to(torch.uint8), (self.mask * 255).round().to(torch.uint8), self.landmarks)

    def unpacked(self, rows: Int[Tensor, "n"]) -> Pictures:
        """Some of packed pictures, as numbers in [0, 1]."""
        return Pictures(self.image[rows] / 255, self.mask[rows] / 255, self.landmarks[rows])


class Album:
    """Pictures of people, new ones at each step or, where the configuration limits them, drawn once and shown again."""

    def __init__(self, config: RecognitionTraining, model: FaceModel, frame: CropFrame, people: People, source: PhotographsPeople) -> None:
        self.config, self.model, self.frame, self.people, self.source = config, model, frame, people, source
        self._random = torch.Generator(model.device).manual_seed(config.seed)
        self._pool: tuple[Int[Tensor, "n"], Pictures] | None = None
        if config.pictures:
            batches = [self._new(step) for step in range(-(-config.pictures // config.batch_size))]
            packed = [pictures.packed() for _, pictures in batches]
            merged = Pictures(*(torch.cat(parts) for parts in zip(*packed, strict=True)))
            self._pool = torch.cat([identity for identity, _ in batches]), merged

    @torch.no_grad()
    def show(self, step: int) -> tuple[Int[Tensor, "b"], Float[Tensor, "b 3 h w"], Float[Tensor, "b 68 2"]]:
        """Identities, pictures with masks and landmarks with errors; both are new at each step."""
        if self._pool is None:
            identity, pictures = self._new(step)
        else:
            everyone, packed = self._pool
            rows = torch.randint(len(everyone), (self.config.batch_size,), generator=self._random, device=self.model.device)
            identity, pictures = everyone[rows], packed.unpacked(rows)
        return identity, *disturb(pictures, self.config, self._random)

    @torch.no_grad()
    def _new(self, step: int) -> tuple[Int[Tensor, "b"], Pictures]:
        identity = torch.randint(len(self.people), (self.config.batch_size,), generator=self._random, device=self.model.device)
        batch = self.source.faces_of(self.people.shape[identity], self.people.albedo[identity], step)
        return identity, draw_pictures(self.model, self.frame, batch, self.config)


class MarginClassifier(nn.Module):
    """Softmax over cosines to the centre of each identity, the right one handicapped by a margin."""

    def __init__(self, embedding_size: int, identities: int, scale: float, margin_of: Literal["arcface", "cosface"]) -> None:
        super().__init__()
        self.centres = nn.Parameter(functional.normalize(torch.randn(identities, embedding_size), dim=1))
        self.scale, self.margin_of = scale, margin_of

    def forward(
        self, embedding: Float[Tensor, "b n"], identity: Int[Tensor, "b"], margin: float
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "b identities"]]:
        """Cross-entropy with the margin, and the cosines without it."""
        cosines = embedding @ functional.normalize(self.centres, dim=1).T
        own = cosines.gather(1, identity[:, None])
        handicapped = own - margin if self.margin_of == "cosface" else _turn_away(own, margin)
        logits = self.scale * cosines.scatter(1, identity[:, None], handicapped)
        return functional.cross_entropy(logits, identity), cosines


def train_recognition(
    config: RecognitionTraining,
    device: torch.device | str,
    out: Path,
    report: Report | None = None,
    *,
    model: FaceModel | None = None,
) -> Path:
    """Train from a fresh start, measure on people never seen, save; the same seed on the same device gives the same network.

    Args:
        config: see its fields.
        device: where to train.
        out: the file to write.
        report: told the loss and the accuracy every `report_every` steps, at the end what was measured.
        model: the face model, if it is loaded already.

    Raises:
        ModelError: there is no such face model.
        ConfigError: the training diverged.
        OutputError: the file cannot be written.
    """
    from focus_backend.morphable.store import load_model
    from train.data.synthetic import SyntheticFaces

    model = (model or load_model(config.model)).to(device)
    frame = CropFrame.of(model, config.image_size)
    source = SyntheticFaces(model, frame, seed=config.seed, device=device)
    network = train_network(config, model, frame, source, report)
    measured = measure_verification(
        network, config, model, frame, SyntheticFaces(model, frame, seed=config.seed + _HELD_OUT, device=device)
    )
    if report is not None:
        report(config.steps, measured)
    notes = {"config": config.model_dump(mode="json"), "verification": measured, "face_model": model.name, "people": "synthetic"}
    save_network(out, network, training=notes)
    return out


def train_network(
    config: RecognitionTraining, model: FaceModel, frame: CropFrame, source: PhotographsPeople, report: Report | None
) -> RecognitionNetwork:
    """The network after all steps, in evaluation mode; arguments as for `train_recognition`, the source photographs its people."""
    people = People(model, config.identities, config, config.seed)
    coordinates = people.coordinates(model, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = RecognitionNetwork(RecognitionConfig(architecture=config.architecture))
        classifier = MarginClassifier(network.embedding_size, config.identities, config.scale, config.margin_of)
        reader = nn.Linear(network.embedding_size, coordinates.shape[1])
    parts = nn.ModuleList([network, classifier, reader]).to(model.device).train()
    optimiser = torch.optim.AdamW(parts.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config.steps))
    album = Album(config, model, frame, people, source)
    for step in range(config.steps):
        identity, image, landmarks = album.show(step)
        embedding = network.final(image, landmarks)
        classification, cosines = classifier(embedding, identity, _margin(step, config))
        # Numbers of a vector of unit length are small.
        misread = (reader(embedding * network.embedding_size**0.5) - coordinates[identity]).square().mean()
        loss = config.classification * classification + config.coefficients * misread
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), config.gradient_norm)
        optimiser.step()
        schedule.step()
        if (step + 1) % config.report_every == 0 or step + 1 == config.steps:
            right = (cosines.argmax(1) == identity).float().mean()
            _report_step(step + 1, {"loss": loss, "classification": classification, "misread": misread, "accuracy": right}, report)
    return network.eval()


def draw_pictures(model: FaceModel, frame: CropFrame, batch: FaceBatch, config: RecognitionTraining) -> Pictures:
    """The faces of a batch, the first of them as plain renders, in turn over black and over their own picture."""
    assert batch.theta is not None, "a source of known people"
    assert batch.mask is not None, "a source of known people"
    # A share of whole pictures, not a chance of each: nothing has to wait for the device to know a size.
    renders = round(config.render_share * len(batch))
    if not renders:
        return Pictures(batch.image, batch.mask, batch.landmarks)
    is_black = torch.arange(renders, device=batch.image.device)[:, None, None, None] % 2 == 0
    behind = torch.where(is_black, 0.0, batch.image[:renders].permute(0, 2, 3, 1))
    rendering = decode(model, frame, batch.theta[:renders], background=behind).rendering
    image = torch.cat([rendering.image.permute(0, 3, 1, 2).clamp(0, 1), batch.image[renders:]])
    return Pictures(image, torch.cat([rendering.mask.to(batch.mask.dtype), batch.mask[renders:]]), batch.landmarks)


def disturb(
    pictures: Pictures, config: RecognitionTraining, random: torch.Generator
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 68 2"]]:
    """Pictures, some of them cut out by masks as a network half sure would give them, and landmarks as detectors find them."""
    count, size, device = len(pictures.image), pictures.image.shape[-1], pictures.image.device
    masked = torch.rand(count, generator=random, device=device) < config.masked_share
    kept = torch.where(masked[:, None, None], pictures.mask * _mask_holes(count, size, random, device), 1.0)
    noise = torch.randn(pictures.landmarks.shape, generator=random, device=device) * config.landmark_noise * size
    return pictures.image * kept[:, None], pictures.landmarks + noise


def measure_verification(
    network: RecognitionNetwork, config: RecognitionTraining, model: FaceModel, frame: CropFrame, source: PhotographsPeople
) -> dict[str, float]:
    """How well cosines tell pictures of one person from pictures of two, on people of another seed.

    Returns:
        `auc`: probability that a pair of one person is closer than a pair of two, over all pairs of pictures; `auc_render_photo`: over
        pairs of a render and a photo, which are what the perceptual losses compare; `same`, `different`: mean cosines.
    """
    people = People(model, config.held_out_identities, config, config.seed + _HELD_OUT)
    random = torch.Generator(model.device).manual_seed(config.seed + _HELD_OUT)
    identities = torch.arange(len(people), device=model.device).repeat_interleave(config.held_out_pictures)
    # Mixed, so that every chunk's renders are of other people.
    identities = identities[torch.randperm(len(identities), generator=random, device=model.device)]
    embeddings, is_render = [], []
    was_training = network.training
    network.eval()
    with torch.no_grad():
        for step, chunk in enumerate(identities.split(config.batch_size)):
            batch = source.faces_of(people.shape[chunk], people.albedo[chunk], step)
            image, landmarks = disturb(draw_pictures(model, frame, batch, config), config, random)
            embeddings.append(network.final(image, landmarks))
            is_render.append(torch.arange(len(chunk), device=model.device) < round(config.render_share * len(chunk)))
    network.train(was_training)
    return _verification(torch.cat(embeddings), identities, torch.cat(is_render))


def area_under_curve(positive: Float[Tensor, "p"], negative: Float[Tensor, "n"]) -> float:
    """Probability that a positive score exceeds a negative one, ties counted half (Mann and Whitney); NaN if either is empty."""
    if not len(positive) or not len(negative):
        return math.nan
    ordered = negative.sort().values
    below, not_above = torch.searchsorted(ordered, positive), torch.searchsorted(ordered, positive, right=True)
    return float((below + not_above).double().mean() / (2 * len(negative)))


def _report_step(step: int, values: Mapping[str, Float[Tensor, ""]], report: Report | None) -> None:
    """Say how it goes; raise once the loss is no number."""
    scalars = {name: value.item() for name, value in values.items()}
    if not math.isfinite(scalars["loss"]):
        raise ConfigError(f"training diverged before step {step}", "lower learning_rate or margin")
    if report is not None:
        report(step, scalars)


def _principal_axes(basis: Float[Tensor, "coefficients n"], axes: int) -> Float[Tensor, "coefficients axes"]:
    """Turns coefficients into coordinates along which offsets vary most, first the most; unit spread stays unit spread."""
    flat = basis.double().cpu()
    _, vectors = torch.linalg.eigh(flat @ flat.T)
    main = vectors.flip(1)[:, :axes]
    # An eigenvector's sign is arbitrary.
    return (main * main.sum(0).sign()).to(basis)


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: up over the first twentieth, then down along half a cosine."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def _margin(step: int, config: RecognitionTraining) -> float:
    """The margin, grown in proportion to the steps of its warm-up: at once, it would be out of reach for a network that knows nothing."""
    warmup = config.margin_warmup * config.steps
    return config.margin * min(1.0, step / warmup) if warmup > 0 else config.margin


def _turn_away(cosine: Float[Tensor, "b 1"], angle: float) -> Float[Tensor, "b 1"]:
    """cos(theta + angle), continued as a line where theta + angle passes pi, so that it falls everywhere."""
    # The square root has no slope at its end.
    sine = (1 - cosine.square()).clamp(min=1e-7).sqrt()
    turned = cosine * math.cos(angle) - sine * math.sin(angle)
    return torch.where(cosine > -math.cos(angle), turned, cosine - angle * math.sin(angle))


def _mask_holes(count: int, size: int, random: torch.Generator, device: torch.device) -> Float[Tensor, "b h w"]:
    """Masks as a network half sure would give them: ones with smooth holes, no holes in every second picture."""
    field = torch.rand(count, 1, 6, 6, generator=random, device=device)
    smooth = functional.interpolate(field, (size, size), mode="bicubic", align_corners=False)[:, 0]
    holes = ((smooth - 0.15) * 12).clamp(0, 1)
    whole = torch.rand(count, 1, 1, generator=random, device=device) < 0.5
    return torch.where(whole, 1.0, holes)


def _verification(embeddings: Float[Tensor, "b n"], identities: Int[Tensor, "b"], is_render: Tensor) -> dict[str, float]:
    """Scores over all pairs of pictures."""
    first, second = torch.triu_indices(len(embeddings), len(embeddings), 1, device=embeddings.device)
    cosines = (embeddings @ embeddings.T)[first, second]
    same, mixed = identities[first] == identities[second], is_render[first] != is_render[second]
    scores: dict[str, Any] = {
        "auc": area_under_curve(cosines[same], cosines[~same]),
        "auc_render_photo": area_under_curve(cosines[same & mixed], cosines[~same & mixed]),
        "same": float(cosines[same].mean()),
        "different": float(cosines[~same].mean()),
    }
    # What there was no pair for is left out.
    return {name: round(value, 4) for name, value in scores.items() if math.isfinite(value)}
