"""The encoder: names that published weights have, the start of theta, precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from focus_backend.errors import WeightsError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.encoder import Encoder, EncoderConfig, load_imagenet
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.mobilenet import MobileNet
from focus_backend.networks.resnet import ResNet50
from focus_backend.networks.theta import START_BAND0, ThetaSizes

BACKBONES = {"resnet50": ResNet50, "mobilenet": MobileNet}


def make_encoder(model: FaceModel, backbone: str = "mobilenet", size: int = 64) -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderConfig(backbone=backbone), model, size)


def images(size: int = 64, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_resnet50_has_the_tensors_of_torchvision() -> None:
    """Names and shapes as in the published `resnet50` state dict."""
    with torch.device("meta"):
        state = ResNet50(1000).state_dict()
    assert len(state) == 320
    assert sum(value.numel() for name, value in state.items() if not name.endswith(("mean", "var", "tracked"))) == 25_557_032
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.num_batches_tracked": (),
        "layer1.2.bn3.bias": (256,),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.conv3.weight": (1024, 256, 1, 1),
        "layer4.0.downsample.0.weight": (2048, 1024, 1, 1),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "fc.weight": (1000, 2048),
        "fc.bias": (1000,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert "layer1.1.downsample.0.weight" not in state


def test_mobilenet_has_the_tensors_of_torchvision() -> None:
    """Names and shapes as in the published `mobilenet_v3_small` state dict, whose features hold 927,008 parameters."""
    with torch.device("meta"):
        network = MobileNet(7)
    state = network.state_dict()
    assert len(state) == 242
    assert sum(parameter.numel() for parameter in network.features.parameters()) == 927_008
    shapes = {
        "features.0.0.weight": (16, 3, 3, 3),
        "features.0.1.running_mean": (16,),
        "features.1.block.0.0.weight": (16, 1, 3, 3),
        "features.1.block.1.fc1.weight": (8, 16, 1, 1),
        "features.1.block.2.0.weight": (16, 16, 1, 1),
        "features.4.block.2.fc2.bias": (96,),
        "features.11.block.1.0.weight": (576, 1, 5, 5),
        "features.11.block.2.fc1.weight": (144, 576, 1, 1),
        "features.12.0.weight": (576, 96, 1, 1),
        "features.12.1.num_batches_tracked": (),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet"])
def test_pictures_shrink_32_times(backbone: str) -> None:
    network = BACKBONES[backbone](3)
    kernels = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.MaxPool2d) and m.stride in ((2, 2), 2)]
    # The downsampling shortcuts of ResNet's three later stages run beside the main path.
    assert len(kernels) == (5 + 3 if backbone == "resnet50" else 5)


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet"])
def test_untrained_encoder_gives_the_start_of_theta(tiny_model: FaceModel, backbone: str) -> None:
    theta = make_encoder(tiny_model, backbone).eval()(images())
    for coefficients in (theta.shape, theta.expression, theta.albedo, theta.rotation):
        assert not coefficients.any()
    assert [theta.shape.shape[1], theta.expression.shape[1], theta.albedo.shape[1]] == list(ThetaSizes.of(tiny_model))
    assert (theta.lighting[:, 0] == torch.tensor(START_BAND0)).all()
    assert not theta.lighting[:, 1:].any()
    assert torch.equal(theta.translation, CropFrame.of(tiny_model, 64).start_translation.expand(2, 3))


def test_gradient_reaches_head_at_once_and_every_parameter_after(tiny_model: FaceModel) -> None:
    encoder = make_encoder(tiny_model)
    optimiser = torch.optim.SGD(encoder.parameters(), 0.1)
    random = torch.Generator().manual_seed(2)
    weights = torch.randn(encoder.sizes.total, generator=random)
    for step in range(2):
        optimiser.zero_grad()
        (encoder.outputs(images()) @ weights).sum().backward()
        trunk = [parameter.grad for parameter in encoder.backbone.features.parameters()]
        assert encoder.backbone.head.weight.grad.abs().max() > 0
        # A zero head passes no gradient on.
        assert all(bool(gradient.any()) == (step == 1) for gradient in trunk)
        optimiser.step()
    assert encoder(images()).shape.abs().max() > 0


def test_state_has_no_tensor_of_the_face_model(tiny_model: FaceModel) -> None:
    encoder = make_encoder(tiny_model)
    assert all(name.startswith("backbone.") for name in encoder.state_dict())
    assert set(dict(encoder.named_buffers())) - set(encoder.state_dict()) == {"mean", "deviation", "start_translation"}
    assert encoder.to(torch.float64).start_translation.dtype == torch.float64


def test_images_are_normalised_by_the_statistics_of_imagenet(tiny_model: FaceModel) -> None:
    encoder = make_encoder(tiny_model).eval()
    torch.nn.init.normal_(encoder.backbone.head.weight)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    image = normalised * deviation[:, None, None] + mean[:, None, None]
    torch.testing.assert_close(encoder.outputs(image), encoder.backbone(normalised), atol=1e-4, rtol=1e-4)


def test_theta_is_float32_under_autocast_and_channels_last(tiny_model: FaceModel) -> None:
    encoder = make_encoder(tiny_model).eval()
    torch.nn.init.normal_(encoder.backbone.head.weight, std=0.1)
    exact = encoder(images())
    encoder = encoder.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        theta = encoder(images().contiguous(memory_format=torch.channels_last))
    assert {value.dtype for value in vars(theta).values()} == {torch.float32}
    torch.testing.assert_close(theta.shape, exact.shape, atol=0.1, rtol=0.1)
    # bfloat16 knows a metre to 4 mm only.
    torch.testing.assert_close(theta.translation[:, 2], exact.translation[:, 2], atol=0.01, rtol=0)


def published(backbone: str) -> dict[str, torch.Tensor]:
    """A state dict such as torchvision publishes: our trunk's, with a classifier of 1,000 classes."""
    torch.manual_seed(5)
    network = BACKBONES[backbone](1000)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    if backbone == "mobilenet":
        del state["classifier.weight"], state["classifier.bias"]
        for name, size in {"classifier.0.weight": (1024, 576), "classifier.0.bias": (1024,), "classifier.3.bias": (1000,)}.items():
            state[name] = torch.zeros(size)
    return state


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet"])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_imagenet_weights_fill_all_but_the_head(tiny_model: FaceModel, tmp_path: Path, backbone: str, suffix: str) -> None:
    state, path = published(backbone), tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        # As in torchvision's older files.
        state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        torch.save(state, path)
    else:
        save_file(state, path)
    encoder = make_encoder(tiny_model, backbone)
    load_imagenet(encoder.backbone, path)
    loaded = encoder.backbone.state_dict()
    trunk = [name for name in state if not name.startswith(encoder.backbone.head_prefix)]
    assert len(trunk) > 200
    assert all(torch.equal(loaded[name], state[name]) for name in trunk)
    assert not encoder.backbone.head.weight.any()


class Harmful:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("harm"),))


def test_imagenet_weights_that_do_not_fit_are_refused(tiny_model: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backbone = make_encoder(tiny_model).backbone
    state = published("mobilenet")
    faults = {
        "lacks features.0.0.weight": {name: value for name, value in state.items() if name != "features.0.0.weight"},
        "features.99.weight too many": state | {"features.99.weight": torch.zeros(1)},
        "features.0.0.weight .* shape .*16, 1, 3, 3": state | {"features.0.0.weight": torch.zeros(16, 1, 3, 3)},
        "lacks features.0.0.weight, .* more": {"conv1.weight": torch.zeros(64, 3, 7, 7)},
    }
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    for message, wrong in faults.items():
        save_file(wrong, tmp_path / "wrong.safetensors")
        with pytest.raises(WeightsError, match=message):
            load_imagenet(backbone, tmp_path / "wrong.safetensors")
    (tmp_path / "damaged.pth").write_bytes(b"not a file of torch")
    torch.save({"state": Harmful()}, tmp_path / "harmful.pth")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "nested.pth")
    for name in ("damaged.pth", "harmful.pth", "nested.pth", "absent.pth", "absent.safetensors"):
        with pytest.raises(WeightsError, match=name):
            load_imagenet(backbone, tmp_path / name)
    assert not (tmp_path / "harm").exists()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
