"""Scripts that write pages of the documentation: the model card and the sheet of photos."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from conftest import make_reconstruction
from focus_backend.errors import FocusError
from focus_backend.export.bundle import write_reconstruction
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model, save_model
from focus_backend.networks.encoder import Encoder, EncoderConfig
from focus_backend.networks.segmentation import SegmentationConfig, SegmentationNetwork
from focus_backend.networks.weights import save_weights
from train.config import TrainingConfig

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """Imports a script as running it does."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in ("model_card", "photo_sheet", "draw_heads"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: FaceModel) -> FaceModel:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(tiny_model, path)
    return load_model(path)


def save(folder: Path, model: FaceModel, **changes) -> str:
    """Weights with a recipe."""
    torch.manual_seed(0)
    recipe = TrainingConfig().model_dump(mode="json", exclude={"compute", "logging"})
    notes = {"config": "mine", "stage": "em", "steps": 600, "recipe": {**recipe, **changes}, "recommended_method": "network"}
    encoder, segmentation = Encoder(EncoderConfig(backbone="mobilenet"), model, 64), SegmentationNetwork(SegmentationConfig(width=4))
    return save_weights(folder, encoder, segmentation, model=model, image_size=64, training=notes, precision="half")


def judged(median: float) -> dict:
    """What judge.py writes."""
    figures = {"photos": 8, "median": median, "mean": 1.3, "std": 1.0, "f1": 0.95, "iou": 0.8}
    table = {"all": figures, "hand": {**figures, "f1": 0.88}, "paint": {**figures, "f1": float("nan"), "iou": float("nan")}}
    return {"table": table, "same": 0.6, "different": 1.2, "failed": []}


def fairness(sha256: str, dark_f1: float = 0.7, dark_people: int = 40) -> dict:
    """What `evaluate fairness` writes."""

    def figures(people: int, f1: float) -> dict:
        values = {"shape": 1.5, "mean_head": 2.5, "mask_f1": f1, "colour": 20.0, "tone_bias": 1.0}
        return {"people": people, "found": 1.0, **{name: {"mean": value, "error": 0.01} for name, value in values.items()}}

    tones = {"light": figures(50, 0.9), "dark": figures(dark_people, dark_f1)}
    head = {"weights": "mine", "sha256": sha256, "seed": 1, "people": 90, "sex": None}
    return {**head, "all": figures(90, 0.8), "groups": {"skin tone": tones}}


def test_the_card_tells_what_was_measured(script, model: FaceModel, tmp_path: Path) -> None:
    sha256 = save(tmp_path / "mine", model)
    files = {"network": judged(0.987), "refine": judged(0.923), "fairness": fairness(sha256)}
    for name, document in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    card = script("model_card").model_card(tmp_path / "mine", [tmp_path / f"{name}.json" for name in files])
    assert "| all | 0.987 / 1.300 | 0.95 | 0.80 | 0.923 / 1.300 | 0.95 | 0.80 |" in card
    assert "| paint | 0.987 / 1.300 | - | - |" in card
    assert "network 0.50, refine 0.50" in card
    assert "mask F1 0.90 (light) to 0.70 (dark);" in card
    assert "shape mm 1.50 (light) to 1.50 (dark), within chance" in card
    assert "fewer than 30 people with very light skin" in card
    assert "By sex nothing can be said" in card
    assert "| `--method auto` | `network` |" in card
    listed = json.loads((tmp_path / "mine" / "weights.json").read_text())
    assert all(value in card for value in (sha256, *listed["files"].values()))
    # Later stages had no part in these weights.
    assert "| em | " in card
    assert "| misfit | " not in card


def test_the_card_claims_nothing_that_was_not_measured(script, model: FaceModel, tmp_path: Path) -> None:
    save(tmp_path / "mine", model)
    card = script("model_card").model_card(tmp_path / "mine", [])
    assert "Not measured on the studio photos." in card
    assert "Nothing is claimed about skin tones or sexes." in card


def test_a_small_group_is_not_compared(script, model: FaceModel, tmp_path: Path) -> None:
    sha256 = save(tmp_path / "mine", model)
    (tmp_path / "fairness.json").write_text(json.dumps(fairness(sha256, dark_people=12)))
    card = script("model_card").model_card(tmp_path / "mine", [tmp_path / "fairness.json"])
    assert "too few people in all but one group" in card
    assert "very light and dark skin" in card


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"data": {"kind": "prepared"}}, "data.kind"),
        ({"synthetic": {"photos": "holiday"}}, "synthetic.photos"),
        ({"networks": {"imagenet": "resnet50.pth", "recognition": "default"}}, "networks.imagenet"),
        ({"networks": {"recognition": "arcface.safetensors"}}, "networks.recognition"),
    ],
)
def test_weights_with_other_sources_need_a_card_by_hand(script, model: FaceModel, tmp_path: Path, changes: dict, name: str) -> None:
    save(tmp_path / "mine", model, **changes)
    with pytest.raises(FocusError, match=name):
        script("model_card").model_card(tmp_path / "mine", [])


def test_evaluations_of_other_weights_are_refused(script, model: FaceModel, tmp_path: Path) -> None:
    save(tmp_path / "mine", model)
    (tmp_path / "fairness.json").write_text(json.dumps(fairness("0" * 64)))
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    faults = {"fairness": "of other weights", "other": "neither of judge.py", "broken": "cannot be read", "missing": "cannot be read"}
    for file, message in faults.items():
        with pytest.raises(FocusError, match=message):
            script("model_card").model_card(tmp_path / "mine", [tmp_path / f"{file}.json"])


@pytest.fixture
def results(tmp_path: Path, tiny_model: FaceModel) -> Path:
    """Results of two faces, and a folder that is none."""
    for seed, name in enumerate(["portrait", "portrait-2"]):
        made = make_reconstruction(tiny_model, seed=seed)
        picture = torch.full((64, 64, 3), 200, dtype=torch.uint8).numpy()
        write_reconstruction(dataclasses.replace(made, texture=picture), tmp_path / "out" / name)
    (tmp_path / "out" / "notes").mkdir()
    return tmp_path / "out"


def test_a_sheet_has_a_row_a_face(script, results: Path, tiny_model: FaceModel) -> None:
    sheets = script("photo_sheet")
    folders = sheets.result_folders([results])
    assert [folder.name for folder in folders] == ["portrait", "portrait-2"]
    assert sheets.result_folders([results / "portrait-2", results / "portrait"]) == folders[::-1]
    row = sheets.draw_row(folders[0], tiny_model)
    assert len(row) == 5
    photo = row[0].resize((8, 8))
    # The made photo gets redder to the right and greener to the bottom; the heads stand on the dark page.
    assert photo.getpixel((6, 4))[0] > photo.getpixel((1, 4))[0]
    assert photo.getpixel((4, 6))[1] > photo.getpixel((4, 1))[1]
    front, turned = (head.convert("L") for head in row[3:])
    assert front.getpixel((160, 160)) > 100
    assert front.getpixel((2, 2)) < 40
    assert front.tobytes() != turned.tobytes()
    sheet = sheets.draw_sheet([row] * (sheets.MOST_ROWS + 1))
    assert sheet.width > 2 * 5 * sheets.CELL
    assert sheet.height < (sheets.MOST_ROWS + 1) * sheets.CELL


def test_a_sheet_is_never_too_large(script) -> None:
    sheets = script("photo_sheet")
    noise = Image.frombytes("RGB", (1200, 1000), torch.randint(0, 255, (3_600_000,), dtype=torch.uint8).numpy().tobytes())
    data = sheets.encode_sheet(noise)
    assert len(data) <= sheets.MOST_BYTES


def test_what_is_no_result_is_named(script, results: Path, model: FaceModel) -> None:
    sheets = script("photo_sheet")
    with pytest.raises(FocusError, match="holds no results"):
        sheets.result_folders([results, results / "notes"])
    (results / "portrait" / "texture.png").unlink()
    with pytest.raises(FocusError, match="not whole"):
        sheets.draw_row(results / "portrait", model)
    with pytest.raises(FocusError, match="not of the face model anny"):
        sheets.draw_row(results / "portrait-2", load_model("anny"))
