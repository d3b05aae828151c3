"""How the renderer's parts behind the z-buffer are computed: compiled for the CPU, or in plain torch with fixed shapes for CUDA."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from focus_backend.errors import ConfigError

Execution = Literal["auto", "compiled", "dense"]


def is_compiled(values: Tensor, execution: Execution) -> bool:
    """Whether to take the compiled kernels: "auto" takes them on the CPU and the dense way elsewhere.

    The dense way looks at every pixel and keeps all shapes free of the data, so the host never waits for the device; it works everywhere.

    Raises:
        ConfigError: the compiled kernels were asked for, and the tensor is not on the CPU.
    """
    is_on_cpu = values.device.type == "cpu"
    if execution == "compiled" and not is_on_cpu:
        raise ConfigError(f"compiled kernels cannot work on {values.device.type} tensors", "use execution 'auto'")
    return is_on_cpu and execution != "dense"
