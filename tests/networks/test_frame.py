"""The crop's frame: light that turns with it."""

from __future__ import annotations

import torch

from focus_backend.networks.frame import turn_lighting
from focus_backend.rendering import spherical_harmonics


def _turn() -> torch.Tensor:
    return torch.linalg.matrix_exp(torch.tensor([[0, -0.3, 0.1], [0.3, 0, 0.2], [-0.1, -0.2, 0]], dtype=torch.float64))


def test_turned_light_shades_turned_normals_as_before():
    random = torch.Generator().manual_seed(0)
    lighting = torch.randn(9, 3, generator=random, dtype=torch.float64)
    normals = torch.nn.functional.normalize(torch.randn(20, 3, generator=random, dtype=torch.float64), dim=-1)
    turned = turn_lighting(lighting, _turn())
    torch.testing.assert_close(spherical_harmonics(normals @ _turn().T) @ turned, spherical_harmonics(normals) @ lighting)


def test_the_same_light_turns_to_the_same_bits_whatever_memory_held_before():
    lighting = torch.randn(9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first = turn_lighting(lighting, _turn())
    for step in range(200):
        # Leaves rubbish where the next call allocates.
        torch.randint(-9, 9, (9 + step % 5,), dtype=torch.int32)
        assert torch.equal(turn_lighting(lighting, _turn()), first)
