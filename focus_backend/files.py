"""Files that are written whole or not at all, and hashes of what tensors they hold."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focus_backend.errors import OutputError

if TYPE_CHECKING:
    from torch import Tensor


def write_whole(path: Path, data: bytes) -> None:
    """Write beside, then rename: a kill leaves the file as it was.

    Raises:
        OutputError: the place cannot be written to.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:  # Ctrl-C too must leave nothing behind
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise OutputError(f"{path} cannot be written ({error.strerror or error})", "choose another place") from error


def digest_of(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> str:
    """sha256 over the description without its own digest and over every tensor's name, type, shape and bytes."""
    import torch

    rest = {key: value for key, value in description.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
