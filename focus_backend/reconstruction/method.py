"""Which way of reconstructing is wanted, and which weights and misfit prior go with it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from focus_backend.errors import ConfigError, WeightsError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.weights import LIST_NAME, Weights, default_weights, find_weights, load_weights

# "auto" is what the weights for the face model recommend, and "fit" where there are none.
METHODS = ("auto", "fit", "network", "refine")
# The training note that tells which method "auto" is with the weights; "refine" without it.
RECOMMENDED_METHOD = "recommended_method"
# The training note that tells with which method the misfit prior was made.
MISFIT_METHOD = "misfit_method"


def weights_for(method: str, name_or_path: str | Path | None, model: FaceModel, device: str) -> Weights | None:
    """The weights that a method works with, on a device; None for the fit alone.

    Args:
        method: one of `METHODS`.
        name_or_path: of weights; None for those that come with the package.
        model: the face model in use.
        device: "auto", or a torch device.

    Raises:
        ConfigError: no such method or device, or weights for a method without networks.
        WeightsError: there are none, or they cannot be used.
    """
    if method not in METHODS:
        raise ConfigError(f"there is no method {method!r}", f"use one of {', '.join(METHODS)}")
    if method == "fit":
        if name_or_path is not None:
            raise ConfigError("--method fit uses no weights, but --weights was given", "leave one of the two out")
        return None
    name = name_or_path if name_or_path is not None else default_weights()
    if name is None or (method == "auto" and name_or_path is None and not _suit(str(name), model)):
        if method == "auto":
            return None
        problem = f"--method {method} needs trained weights, and none came with this package"
        raise WeightsError(problem, "give --weights FOLDER, train some with `focus-backend train all`, or use --method fit")
    try:
        return load_weights(name, model, choose_device(device))
    except WeightsError as error:
        if name_or_path is not None or not _suit(str(name), model):
            raise
        raise WeightsError(error.problem, "install this package again, or use --method fit") from error


def chosen_method(method: str, weights: Weights | None) -> str:
    """What a method of `METHODS` is with these weights: "fit", "network" or "refine".

    Raises:
        WeightsError: the weights recommend something else.
    """
    if weights is None or method != "auto":
        return "fit" if method == "auto" else method
    recommended = weights.description.get("training", {}).get(RECOMMENDED_METHOD, "refine")
    if recommended not in METHODS[1:]:
        problem = f"the weights {weights.name} recommend the method {recommended!r}, which this program does not know"
        raise WeightsError(problem, "update this program, or name a method with --method")
    return recommended


def choose_device(name: str) -> str:
    """The torch device of that name; "auto" is CUDA where there is one.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(f"--device {name} is not available here", "use --device cpu, or leave it out") from None
    return name


def misfit_for(method: str, weights: Weights | None) -> Float[Tensor, "v 3"] | None:
    """E_MP of eq 11, if the weights have one that was made with this method: another one's bias is another."""
    if weights is None or weights.misfit is None:
        return None
    made_with = weights.description.get("training", {}).get(MISFIT_METHOD, "network")
    return weights.misfit.cpu() if made_with == method else None


def _suit(name: str, model: FaceModel) -> bool:
    """Whether shipped weights are for this very face model; damaged ones are, so that loading them tells."""
    try:
        made_for = json.loads((find_weights(name) / LIST_NAME).read_bytes())["face_model"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return made_for == model.metadata.get("sha256")
