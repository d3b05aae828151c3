"""The recognition network: its interface, its gradients, and ArcFace's parameter names."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from focus_backend.networks.alignment import align_face
from focus_backend.networks.iresnet import DEPTHS, IResNet
from focus_backend.networks.recognition import RecognitionConfig, RecognitionNetwork


def _faces(count: int = 2, size: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    spread = torch.randn(count, 68, 2, generator=random) * 15
    return torch.rand(count, 3, size, size, generator=random), spread + size / 2


@pytest.fixture(scope="module")
def small() -> RecognitionNetwork:
    torch.manual_seed(0)
    return RecognitionNetwork().freeze()


def test_shallow_and_final_are_those_of_one_pass(small: RecognitionNetwork) -> None:
    image, landmarks = _faces()
    features = small.features(image, landmarks)
    torch.testing.assert_close(features.shallow, small.shallow(image, landmarks))
    torch.testing.assert_close(features.final, small.final(image, landmarks))
    assert features.shallow.shape[2:] == (56, 56)
    assert features.final.shape == (2, small.embedding_size)
    torch.testing.assert_close(features.final.norm(dim=1), torch.ones(2))


def test_features_computes_the_first_stage_once(small: RecognitionNetwork) -> None:
    calls: list[int] = []
    handle = small.backbone.stem.register_forward_hook(lambda *_: calls.append(1))
    small.features(*_faces())
    handle.remove()
    assert len(calls) == 1


def test_frozen_it_passes_gradients_to_image_and_landmarks_only(small: RecognitionNetwork) -> None:
    image, landmarks = _faces()
    image.requires_grad_()
    landmarks.requires_grad_()
    features = small.features(image, landmarks)
    (features.shallow.mean() + features.final[:, 0].sum()).backward()
    assert image.grad is not None
    assert landmarks.grad is not None
    assert float(image.grad.abs().sum()) > 0
    assert float(landmarks.grad.abs().sum()) > 0
    assert not small.training
    assert all(parameter.grad is None for parameter in small.parameters())


def test_the_backbone_sees_minus_one_to_one(small: RecognitionNetwork) -> None:
    image, landmarks = _faces()
    expected = small.backbone.first_stage(align_face(image, landmarks) * 2 - 1)
    torch.testing.assert_close(small.shallow(image, landmarks), expected)


def test_mixed_precision_keeps_unit_length(small: RecognitionNetwork) -> None:
    image, landmarks = _faces()
    with torch.autocast("cpu", torch.bfloat16):
        final = small.final(image, landmarks)
    assert final.dtype == torch.float32
    torch.testing.assert_close(final.norm(dim=1), torch.ones(2))
    # bfloat16 has three digits, and a random network blows the rest up; two pictures have far less in common.
    assert float((final * small.final(image, landmarks)).sum(1).min()) > 0.9


def test_small_stays_small() -> None:
    parameters = sum(parameter.numel() for parameter in RecognitionNetwork().parameters())
    assert 500_000 < parameters < 1_200_000


def test_parameter_names_are_those_of_arcface() -> None:
    names = set(IResNet(DEPTHS["iresnet18"]).state_dict())
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", "prelu.weight", "fc.weight", "fc.bias"}
    norms = ["bn1", "bn2", "features"]
    for stage in range(1, 5):
        for block in range(2):
            place = f"layer{stage}.{block}"
            expected |= {f"{place}.conv1.weight", f"{place}.conv2.weight", f"{place}.prelu.weight"}
            norms += [f"{place}.bn1", f"{place}.bn2", f"{place}.bn3"]
        expected.add(f"layer{stage}.0.downsample.0.weight")
        norms.append(f"layer{stage}.0.downsample.1")
    assert names == expected | {f"{norm}.{part}" for norm in norms for part in parts}


@pytest.mark.parametrize(
    ("architecture", "millions"), [("iresnet18", 24.0), ("iresnet34", 34.1), ("iresnet50", 43.6), ("iresnet100", 65.2)]
)
def test_iresnets_have_the_published_sizes(architecture: str, millions: float) -> None:
    with torch.device("meta"):
        network = RecognitionNetwork(RecognitionConfig(architecture=architecture))
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_an_iresnet_gives_its_first_stage_and_512_numbers() -> None:
    torch.manual_seed(0)
    network = RecognitionNetwork(RecognitionConfig(architecture="iresnet18")).freeze()
    features = network.features(*_faces(1))
    assert features.shallow.shape == (1, 64, 56, 56)
    assert features.final.shape == (1, 512)
    # A block by the formula of the paper, on its own parts.
    block = network.backbone.layer1[1]
    assert isinstance(block, nn.Module)
    inner = block.conv2(
        torch.relu(block.bn2(block.conv1(block.bn1(features.shallow))))
        - 0.25 * torch.relu(-block.bn2(block.conv1(block.bn1(features.shallow))))
    )
    torch.testing.assert_close(block(features.shallow), features.shallow + block.bn3(inner))


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValidationError):
        RecognitionConfig(architecture="vgg")
