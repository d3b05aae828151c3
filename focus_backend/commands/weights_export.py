"""`focus-backend weights export`: what a training run ended with, as one folder to give away, such as the weights of the package."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import torch

from focus_backend.errors import ConfigError, WeightsError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.checkpoint import Precision, load_network
from focus_backend.networks.weights import (
    Weights,
    find_weights,
    load_recognition,
    load_weights,
    part_file,
    read_list,
    save_weights,
)
from focus_backend.reconstruction.method import METHODS, MISFIT_METHOD, RECOMMENDED_METHOD

# The training note that holds the run's configuration.
RECIPE = "recipe"
# Of a configuration, what says how and on which machine it was run but not what was learnt.
_NO_RECIPE = ("compute", "logging")
_ORIGIN = ("config", "stage", "steps", "data")
PARTS = ("segmentation", "misfit", "recognition")


def export_command(source: Path, out: Path, parts: Mapping[str, Path | None], method: str | None, precision: Precision) -> None:
    """Write the folder and say what it is; arguments and errors as `export_weights`."""
    sha256 = export_weights(source, out, parts, method=method, precision=precision)
    listed, _ = read_list(out)
    files = [part_file(out, kind) for kind in listed.files]
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{out} ({', '.join(sorted(listed.files))}; {size:.1f} MB; sha256 {sha256[:12]})")


def export_weights(
    source: str | Path,
    out: Path,
    parts: Mapping[str, Path | None] | None = None,
    *,
    method: str | None = None,
    precision: Precision = "half",
) -> str:
    """Write weights anew, with parts of other weights where wanted; returns the sha256 of the list.

    Args:
        source: weights, by name or folder; their encoder is taken, and whatever `parts` does not name.
        out: folder; its last part is the name of the weights. What else an earlier one there held, such as a model card, stays.
        parts: for some of `PARTS` the weights folder to take them from (recognition: or the network's file); None leaves a part out.
        method: what `--method auto` is to be with these weights; None for what the source says.
        precision: "half" stores matrices and kernels in 16 bits.

    Raises:
        ConfigError: there is no such method or part.
        WeightsError: weights cannot be used, lack a part, or parts do not belong together.
        OutputError: the folder cannot be written.
    """
    parts = parts or {}
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ConfigError(f"weights have no part {unknown[0]!r} to choose", f"choose of {', '.join(PARTS)}")
    if method is not None and method not in METHODS[1:]:
        raise ConfigError(f"the method {method!r} cannot be recommended", f"use one of {', '.join(METHODS[1:])}")
    folder = find_weights(source)
    model = load_model(read_list(folder)[0].face_model.name)
    weights = load_weights(folder, model)
    notes = {**weights.description["training"], **_recipe_of(folder)}
    if method is not None:
        notes[RECOMMENDED_METHOD] = method
    segmentation, misfit = weights.segmentation, weights.misfit
    if "segmentation" in parts:
        other = _other(parts["segmentation"], model, weights, "segmentation", notes)
        segmentation = None if other is None else other.segmentation
    if "misfit" in parts:
        notes.pop(MISFIT_METHOD, None)
        other = _other(parts["misfit"], model, weights, "misfit", notes)
        misfit = None if other is None else other.misfit
    return save_weights(
        out,
        weights.encoder,
        segmentation,
        model=model,
        image_size=weights.image_size,
        misfit=misfit,
        recognition=_recognition(folder, parts),
        training=notes,
        precision=precision,
        shares_recognition="recognition" not in parts,
    )


def _other(source: Path | None, model: FaceModel, weights: Weights, kind: str, notes: dict[str, Any]) -> Weights | None:
    """The weights that a part is taken from, once it is clear that it suits the encoder, and a note on them; None to leave it out.

    Raises:
        WeightsError: they lack the part, or it was made for another encoder or image size.
    """
    if source is None:
        return None
    other = load_weights(source, model)
    if getattr(other, kind) is None:
        raise WeightsError(f"the weights {source} have no {kind}", "name the folder of a stage that trained it")
    if other.image_size != weights.image_size:
        raise WeightsError(f"the {kind} of {source} is for {other.image_size} px, not {weights.image_size} px", "take parts of one run")
    made = other.description["training"]
    if kind == "misfit":
        # The prior is what this very encoder gets wrong.
        if not _same(other.encoder.state_dict(), weights.encoder.state_dict()):
            raise WeightsError(f"the misfit prior of {source} is another encoder's", "train the misfit stage from these weights")
        notes.update({name: made[name] for name in (MISFIT_METHOD,) if name in made})
    origin = {name: made[name] for name in _ORIGIN if name in made}
    notes["parts"] = {**notes.get("parts", {}), kind: {**origin, "sha256": other.sha256}}
    return other


def _same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def _recognition(folder: Path, parts: Mapping[str, Path | None]) -> torch.nn.Module | None:
    """The recognition network that is to lie in the folder; one that weights share stays where it is."""
    if "recognition" not in parts:
        own = folder / "recognition.safetensors"
        return load_recognition(folder) if own.is_file() else None
    source = parts["recognition"]
    if source is None:
        return None
    network = load_network(source, "recognition") if source.is_file() else load_recognition(source)
    if network is None:
        raise WeightsError(f"the weights {source} have no recognition", "name a folder or file with one")
    return network


def _recipe_of(folder: Path) -> dict[str, Any]:
    """The run's configuration as a note, where the folder lies in a run or a run's stage."""
    for place in (folder.parent, folder.parent.parent):
        file = place / "config.toml"
        if file.is_file():
            try:
                recipe = tomllib.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ConfigError(f"{file} cannot be read ({error})", "mend it, or move the weights out of the run") from error
            return {RECIPE: {name: value for name, value in recipe.items() if name not in _NO_RECIPE}}
    return {}
