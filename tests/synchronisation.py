"""Finds where a computation would make the host wait for a CUDA device, without one: by the operators it dispatches on any device.

    with count_synchronisations() as found:
        loss_of(batch).backward()
    assert not found

Code that behaves otherwise on the CPU than on CUDA (compiled kernels, tensors made by numpy) has to be told to take the way of CUDA.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators whose result's shape depends on the data, or which hand a number to the host. By name, as not every version has each.
ALWAYS = frozenset(
    {
        "nonzero",
        "nonzero_numpy",
        "_local_scalar_dense",
        "item",
        "is_nonzero",
        "equal",
        "allclose",
        "masked_select",
        "unique_dim",
        "unique_consecutive",
        "unique_dim_consecutive",
        "_unique",
        "_unique2",
        "bincount",
        "argwhere",
        "_linalg_check_errors",
        "_linalg_svd",
        "_linalg_eigh",
    }
)
# Made from Python's numbers or numpy's arrays: on CUDA a copy from memory that is not pinned, for which the host waits. Torch's optimisers
# keep their own counters on the CPU, so they have to be left out.
FROM_HOST = frozenset(["lift_fresh", "lift"])


class _Operators(TorchDispatchMode):
    """Counts the operators that synchronise, forward and backward."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        name = function.overloadpacket.__name__
        is_repeat = name == "repeat_interleave" and kwargs.get("output_size") is None
        if name in ALWAYS or name in FROM_HOST or is_repeat or _is_by_mask(name, args) or _is_between_devices(name, args, result):
            self.found[name] += 1
        elif name != "copy_" and _has_several_devices(args):
            self.found[f"{name} of several devices"] += 1
        return result


class _Methods(TorchFunctionMode):
    """Counts the methods that hand data to Python."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in ("tolist", "numpy", "__array__"):
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


def _is_by_mask(name: str, args: tuple) -> bool:
    """Indexing by a mask, which counts its true elements first."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"):
        return False
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _is_between_devices(name: str, args: tuple, result: object) -> bool:
    """A copy to or from another device; one from pinned memory that does not block is none, for the host goes on."""
    if name == "copy_":
        return args[0].device != args[1].device and not (args[1].is_pinned() and len(args) > 2 and bool(args[2]))
    return name in ("_to_copy", "to") and isinstance(result, Tensor) and result.device != args[0].device


def _has_several_devices(args: tuple) -> bool:
    """Whether tensors of several devices meet; single numbers on the CPU may, and go along with the kernel's launch."""
    tensors = [value for value in tree_leaves(args) if isinstance(value, Tensor)]
    return len({value.device for value in tensors if value.ndim or value.device.type != "cpu"}) > 1


@contextlib.contextmanager
def count_synchronisations() -> Iterator[Counter[str]]:
    """Names of the operators and methods that would synchronise, and how often each ran; filled while the context is open."""
    found: Counter[str] = Counter()
    with _Methods(found), _Operators(found):
        yield found
