"""The misfit prior (eq 11): what it changes, and when it is used."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from focus_backend.cli import app
from focus_backend.reconstruction.method import misfit_for
from focus_backend.reconstruction.misfit import apply_misfit
from focus_backend.reconstruction.reconstructor import Reconstructor
from reconstruction.test_network import five_of_photo


@pytest.fixture(scope="module")
def misfit(model) -> torch.Tensor:
    """Some bias, mm."""
    return torch.randn(model.mean_shape.shape, generator=torch.Generator().manual_seed(0))


def test_the_mean_error_is_taken_off_each_vertex():
    found = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    bias = torch.tensor([[0.5, 0.0, -1.0], [0.0, 2.0, 0.25]])
    assert apply_misfit(found, bias).tolist() == [[0.5, 2.0, 4.0], [4.0, 3.0, 5.75]]


def test_the_command_line_can_leave_it_out(model, make_weights, misfit, tmp_path):
    photo = Path(__file__).parents[2] / "docs" / "demo" / "astronaut.jpg"
    arguments = ["reconstruct", str(photo), "--method", "network", "--weights", str(make_weights(model, misfit=misfit))]
    vertices = []
    for flags in ([], ["--no-misfit"]):
        out = tmp_path / f"out{len(flags)}"
        assert CliRunner().invoke(app, [*arguments, "-o", str(out), *flags]).exit_code == 0
        document = json.loads((out / "astronaut" / "result.json").read_text(encoding="utf-8"))
        assert document["misfit"] == (not flags)
        lines = (out / "astronaut" / "neutral.obj").read_text(encoding="utf-8").splitlines()
        vertices.append([[float(value) for value in line.split()[1:4]] for line in lines if line.startswith("v ")])
    corrected, plain = (torch.tensor(values) for values in vertices)
    assert torch.allclose(plain - corrected, misfit, atol=1e-3)


def test_the_precision_of_the_geometry_is_kept():
    found = torch.ones(2, 3, dtype=torch.float64)
    assert apply_misfit(found, torch.ones(2, 3)).dtype == torch.float64


def test_only_the_neutral_geometry_is_corrected(model, make_weights, misfit, astronaut):
    folder = make_weights(model, misfit=misfit)
    landmarks = five_of_photo(astronaut)
    with_prior, without = (
        Reconstructor.load(model, method="network", weights=folder, misfit=wanted).reconstruct(astronaut, landmarks=landmarks)[0]
        for wanted in (True, False)
    )
    assert (with_prior.misfit, without.misfit) == (True, False)
    assert torch.equal(without.neutral_vertices, model.decode_shape(without.shape))
    assert torch.equal(with_prior.neutral_vertices, without.neutral_vertices - misfit)
    shift = model.now_landmarks.on(misfit, model.triangles)
    assert torch.allclose(with_prior.now_landmarks(), without.now_landmarks() - shift, atol=1e-4)
    assert with_prior.to_document()["misfit"] is True
    assert torch.equal(with_prior.shape, without.shape)
    assert (with_prior.rendering == without.rendering).all()


@pytest.mark.parametrize(
    ("made_with", "method", "is_used"),
    [(None, "network", True), (None, "refine", False), ("refine", "network", False), ("refine", "refine", True)],
)
def test_a_prior_is_used_with_the_method_it_was_made_with(model, make_weights, misfit, made_with, method, is_used):
    notes = {} if made_with is None else {"misfit_method": made_with}
    folder = make_weights(model, misfit=misfit, training=notes)
    weights = Reconstructor.load(model, method=method, weights=folder).strategy.networks.weights
    found = misfit_for(method, weights)
    assert (found is not None) == is_used
    assert not is_used or torch.equal(found, misfit)
    assert misfit_for(method, dataclasses.replace(weights, misfit=None)) is None
    assert misfit_for("fit", None) is None
