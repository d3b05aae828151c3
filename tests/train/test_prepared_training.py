"""Real photos from folder to weights: prepared, then trained with the default face model, small."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from focus_backend.commands.prepare import prepare_command
from focus_backend.morphable.store import load_model
from focus_backend.networks.weights import load_weights
from train.config import load_config
from train.logs import read_losses
from train.stages import train

pytestmark = pytest.mark.slow

DEMO = Path(__file__).parents[2] / "docs" / "demo" / "astronaut.jpg"
SIZE = 64


def variants() -> dict[str, np.ndarray]:
    """Photos of one woman: whole, a part, mirrored, dark."""
    photo = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)
    return {"whole": photo, "part": photo[:340, 60:400], "mirrored": photo[:, ::-1], "dark": (photo * 0.6).astype(np.uint8)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain folder of photos, one of them bad."""
    root = tmp_path_factory.mktemp("photos")
    for name, photo in variants().items():
        cv2.imwrite(str(root / f"{name}.jpg"), photo)
    (root / "demo.jpg").write_bytes(DEMO.read_bytes())
    (root / "bad.jpg").write_text("no photo")
    out = root.parent / f"{root.name}-prepared"
    assert prepare_command("folder", root, out, size=SIZE) == 0
    return out


@pytest.fixture(scope="module")
def celebamask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CelebAMask-HQ's layout: skin is an ellipse, hair covers its top."""
    root = tmp_path_factory.mktemp("celebamask")
    masks = root / "CelebAMask-HQ-mask-anno" / "0"
    for place in (root / "CelebA-HQ-img", masks):
        place.mkdir(parents=True)
    photo = variants()["whole"]
    for number in (0, 1, 8):
        cv2.imwrite(str(root / "CelebA-HQ-img" / f"{number}.jpg"), np.roll(photo, 3 * number, 1))
        skin, hair = np.zeros((512, 512, 3), np.uint8), np.zeros((512, 512, 3), np.uint8)
        cv2.ellipse(skin, (225 + 3 * number, 130), (50, 65), 0, 0, 360, (255, 255, 255), -1)
        hair[:80] = 255
        cv2.imwrite(str(masks / f"{number:05d}_skin.png"), skin)
        cv2.imwrite(str(masks / f"{number:05d}_hair.png"), hair)
    out = root.parent / f"{root.name}-prepared"
    assert prepare_command("celebamask", root, out, size=SIZE) == 0
    return out


def overrides(path: Path, recognition_file: Path) -> list[str]:
    """Few steps on prepared photos, after a warm start on people that do not exist."""
    return [
        "model=anny",
        "data.kind=prepared",
        f'data.path="{path}"',
        f"image_size={SIZE}",
        f'networks.recognition="{recognition_file}"',
        "networks.encoder.backbone=mobilenet",
        "networks.segmentation.width=4",
        "spread_faces=32",
        *(f"{stage}.batch_size=2" for stage in ("warmstart", "init", "segmentation", "em")),
        *("warmstart.steps=1", "init.steps=3", "segmentation.steps=2", "em.steps=4", "em.cycle=2", "em.segmentation_steps=1"),
        *("logging.log_every=1", "logging.picture_every=2", "logging.pictures=2", "compute.device=cpu", "compute.threads=1"),
    ]


def losses_of(run: Path, stage: str, kind: str = "losses") -> list[dict]:
    return [line[kind] for line in read_losses(run / stage / "losses.jsonl") if kind in line]


def test_a_folder_of_photos_becomes_weights(folder: Path, recognition_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = load_config("focus", overrides(folder, recognition_file))
    weights = load_weights(train(config, run), load_model("anny"))
    assert weights.segmentation is not None
    assert weights.description["training"]["data"] == "prepared"
    lines = losses_of(run, "init") + losses_of(run, "segmentation") + losses_of(run, "em")
    assert len(lines) == 3 + 2 + 4
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    shown = losses_of(run, "em", "validation")[-1]
    # Real photos have landmarks and nothing else to compare with; the crops put the mean face near them from the start.
    assert set(shown) == {"landmark_px", "colour_rmse"}
    assert shown["landmark_px"] < 12
    assert "shape_mm" in losses_of(run, "warmstart", "validation")[-1], "only where the truth is known can theta be learnt"


@pytest.mark.parametrize("variant", ["supervised", "cutmix", "cutout", "skin"])
def test_true_masks_train_the_supervised_variants(variant: str, celebamask: Path, recognition_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [*overrides(celebamask, recognition_file), "init.steps=1", "em.steps=2"]
    config = load_config(variant, [*settings, "segmentation.steps=0"] if variant == "skin" else settings)
    weights = load_weights(train(config, run), load_model("anny"))
    assert (weights.segmentation is None) == (variant == "skin")
    shown = losses_of(run, "em", "validation")[-1]
    assert 0 < shown["mask_f1"] <= 1
    assert not any("neighbour" in line for line in losses_of(run, "em")), "S learns nothing of its own here"


def test_photos_without_masks_are_refused_for_supervised_training(folder: Path, recognition_file: Path, tmp_path: Path) -> None:
    from focus_backend.errors import ConfigError

    with pytest.raises(ConfigError, match="no train faces with a mask"):
        train(load_config("supervised", overrides(folder, recognition_file)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_photos_prepared_for_another_size_or_model_are_refused(
    folder: Path, recognition_file: Path, model_file: Path, tmp_path: Path
) -> None:
    from focus_backend.errors import ConfigError

    for setting, words in (("image_size=48", "64 pixels, not 48"), (f'model="{model_file}"', "face model")):
        with pytest.raises(ConfigError, match=words):
            train(load_config("focus", [*overrides(folder, recognition_file), setting]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
