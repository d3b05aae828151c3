"""Renderer speed: `python -m benchmarks.rendering [--model NAME] [--device cuda] [--threads N]`.

Times the z-buffer of every backend that works here, the forward pass and the forward and backward pass of a whole head at 224 px, at
batch 1, 8 and 32. Milliseconds for the batch: median (fastest, slowest). A CUDA device is synchronised around each run.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.rendering import Camera, ambient_lighting, rasterize, rasterize_model, render
from focus_backend.rendering.rasterize_pytorch3d import is_pytorch3d_available
from focus_backend.rendering.rasterize_triton import is_triton_available

SIZE = 224
BATCHES = (1, 8, 32)
# Of one measurement, seconds; at least MIN_RUNS runs.
BUDGET = 3.0
MIN_RUNS = 5
MAX_RUNS = 100
# pytorch3d's CPU path takes seconds an image: batches above this are not worth the wait.
SLOW_BATCH = 1


def time_runs(run: Callable[[], object], device: torch.device) -> list[float]:
    """Milliseconds of repeated runs, after two to warm up and compile."""

    def once() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start)

    once()
    estimate = once()
    return [once() for _ in range(min(MAX_RUNS, max(MIN_RUNS, int(1e3 * BUDGET / estimate))))]


def make_scene(model: FaceModel, batch: int) -> tuple[Tensor, Tensor, Tensor, Camera]:
    """Vertices, albedo, lighting and camera of a batch of different heads that fill most of the picture, all with gradients."""
    generator = torch.Generator().manual_seed(0)
    shape, expression, albedo = (
        torch.randn(batch, size, generator=generator).to(model.device) * 0.5
        for size in (model.shape_size, model.expression_size, model.albedo_size)
    )
    vertices, texture = model.decode(shape, expression, albedo)
    lighting = ambient_lighting(0.8).to(model.device).expand(batch, -1, -1).clone()
    lighting[:, 2] += 0.3
    rotation = torch.eye(3, device=model.device).expand(batch, -1, -1)
    translation = torch.tensor([0.0, 0.0, -600.0], device=model.device).expand(batch, -1)
    focal_length = torch.full((batch,), 2.4 * SIZE, device=model.device)
    centre = torch.full((batch, 2), SIZE / 2, device=model.device)
    leaves = [value.detach().clone().requires_grad_() for value in (vertices, texture, lighting, rotation, translation, focal_length)]
    return *leaves[:3], Camera(*leaves[3:], centre, SIZE, SIZE)  # type: ignore[return-value]


def runs_of(model: FaceModel, batch: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    vertices, texture, lighting, camera = make_scene(model, batch)
    points = camera.to_screen(camera.to_camera_space(vertices)).detach()
    triangles = model.triangles.int()
    leaves = (vertices, texture, lighting, camera.rotation, camera.translation, camera.focal_length)

    def z_buffer(backend: str) -> Callable[[], object]:
        return lambda: rasterize(points, triangles, SIZE, SIZE, cull_backfaces=True, backend=backend)  # type: ignore[arg-type]

    def forward(antialiased: bool) -> object:
        with torch.no_grad():
            return render(model, vertices, texture, lighting, camera, antialiased=antialiased)

    def forward_backward(antialiased: bool) -> object:
        image = render(model, vertices, texture, lighting, camera, antialiased=antialiased).image
        return torch.autograd.grad(image, leaves, torch.ones_like(image))

    runs: dict[str, Callable[[], object]] = {}
    if model.device.type == "cpu":
        runs["z-buffer, numba"] = z_buffer("numba")
    if model.device.type == "cuda" and is_triton_available():
        runs["z-buffer, triton"] = z_buffer("triton")
    runs["z-buffer, torch scatter (baseline)"] = z_buffer("torch")
    if is_pytorch3d_available() and (model.device.type == "cuda" or batch <= SLOW_BATCH):
        runs["z-buffer, pytorch3d (baseline)"] = z_buffer("pytorch3d")
    runs["triangles and barycentric (rasterize_model)"] = lambda: rasterize_model(model, vertices, camera)
    runs["forward"] = lambda: forward(True)
    runs["forward, not antialiased"] = lambda: forward(False)
    runs["forward + backward"] = lambda: forward_backward(True)
    runs["forward + backward, not antialiased"] = lambda: forward_backward(False)
    return runs


def describe(model: FaceModel) -> str:
    """Machine, versions and mesh, one line each."""
    device = torch.cuda.get_device_name() if model.device.type == "cuda" else f"{platform.processor() or platform.machine()} CPU"
    versions = [f"python {platform.python_version()}", f"torch {torch.__version__}"]
    if model.device.type == "cpu":
        import numba

        versions.append(f"numba {numba.__version__}")
    if is_pytorch3d_available():
        import pytorch3d

        versions.append(f"pytorch3d {pytorch3d.__version__}")
    else:
        versions.append("pytorch3d not installed, so not compared")
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    mesh = f"{model.name}: {len(model.mean_shape)} vertices, {len(model.triangles)} triangles, texture {model.texture_size} px"
    machine = f"{device}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads{load}"
    return "\n".join([machine, ", ".join(versions), f"{mesh}, {SIZE} x {SIZE} px"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="anny", help="name or file of a face model")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="torch threads, 0 to leave as it is; the compiled path uses one")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load_model(options.model).to(options.device)
    # A pipe has no width of its own; the table needs this much.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    console.print(describe(model))
    table = Table("ms: median (fastest, slowest)", *(f"batch {batch}" for batch in BATCHES))
    cells: dict[str, dict[int, str]] = {}
    for batch in BATCHES:
        for name, run in runs_of(model, batch).items():
            times = time_runs(run, model.device)
            cells.setdefault(name, {})[batch] = f"{statistics.median(times):.2f} ({min(times):.2f}, {max(times):.2f})"
    for name, row in cells.items():
        table.add_row(name, *(row.get(batch, "-") for batch in BATCHES))
    console.print(table)


if __name__ == "__main__":
    main()
