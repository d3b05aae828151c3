"""The weights that come with the package: whole, small, with a card of their own, and in every wheel."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from focus_backend.networks.checkpoint import load_network, read_description
from focus_backend.networks.weights import (
    DEFAULT_WEIGHTS,
    WEIGHTS_FOLDER,
    default_weights,
    list_weights,
    load_weights,
    part_file,
    read_list,
)

ROOT = Path(__file__).parents[2]
LARGEST_MEGABYTES = 40


@pytest.fixture
def default() -> Path:
    """The folder of the default weights."""
    if default_weights() is None:
        pytest.skip("the package comes without default weights")
    return WEIGHTS_FOLDER / DEFAULT_WEIGHTS


def packaged(folder: Path) -> set[Path]:
    """The files of a folder `focus_backend` that a wheel takes along besides Python's."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    globs = settings["tool"]["setuptools"]["package-data"]["focus_backend"]
    return {path for pattern in globs for path in folder.glob(pattern) if path.is_file()}


def test_a_wheel_has_every_file_of_a_weights_folder(tmp_path: Path) -> None:
    folder = tmp_path / "weights" / DEFAULT_WEIGHTS
    folder.mkdir(parents=True)
    parts = ("encoder", "segmentation", "recognition", "misfit")
    files = {folder / name for name in ("weights.json", "README.md", *(f"{part}.safetensors" for part in parts))}
    for file in files:
        file.touch()
    (folder / "notes.txt").touch()
    assert packaged(tmp_path) == files


def test_a_wheel_has_every_file_of_the_package() -> None:
    package = ROOT / "focus_backend"
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".py"}
    assert files - packaged(package) == set()


def test_the_recognition_network_for_training_is_sound() -> None:
    network = load_network(WEIGHTS_FOLDER / "recognition.safetensors", "recognition")
    assert sum(value.numel() for value in network.parameters()) > 100_000


def test_the_default_weights_are_for_the_default_face_model(default: Path) -> None:
    from focus_backend.morphable.store import load_model

    assert list_weights() == [DEFAULT_WEIGHTS]
    weights = load_weights(DEFAULT_WEIGHTS, load_model("anny"))
    assert weights.name == DEFAULT_WEIGHTS
    assert weights.segmentation is not None


def test_the_default_weights_are_small(default: Path) -> None:
    listed, _ = read_list(default)
    files = {kind: part_file(default, kind) for kind in listed.files}
    assert sum(file.stat().st_size for file in files.values()) < LARGEST_MEGABYTES * 1e6
    assert {kind: read_description(files[kind])["precision"] for kind in ("encoder", "segmentation")} == {
        "encoder": "half",
        "segmentation": "half",
    }


def test_the_model_card_is_of_these_weights(default: Path) -> None:
    card = (default / "README.md").read_text(encoding="utf-8")
    listed, sha256 = read_list(default)
    assert sha256 in card
    assert all(file in card for file in listed.files.values())
