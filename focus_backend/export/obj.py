"""The neutral face as Wavefront OBJ: millimetres, the model's own quads, UV and texture."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

MATERIAL_NAME = "face"
_FRAME = "# millimetres; x to the subject's left, y up, z out of the face; origin between the eyes\n"


def write_obj(
    vertices: Float[np.ndarray, "vertices 3"],
    uv: Float[np.ndarray, "uvs 2"],
    quads: Int[np.ndarray, "quads 4"],
    quad_uv: Int[np.ndarray, "quads 4"],
    material_file: str,
) -> bytes:
    """OBJ file; vertices keep their order, so results of one model correspond line by line.

    Args:
        vertices: model space, mm.
        uv: origin bottom left, as OBJ has it.
        quads: vertex indices; -1 in the last column pads a triangle.
        quad_uv: index into `uv` of each corner.
        material_file: name of the .mtl beside the file.
    """
    parts = [_FRAME, f"mtllib {material_file}\n", "o face\n"]
    parts += [f"v {x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in _without_negative_zero(vertices, 4)]
    parts += [f"vt {u:.6f} {v:.6f}\n" for u, v in _without_negative_zero(uv, 6)]
    parts += [f"usemtl {MATERIAL_NAME}\n", "s 1\n"]
    for corners, corner_uv in zip((quads + 1).tolist(), (quad_uv + 1).tolist(), strict=True):
        parts.append("f " + " ".join(f"{v}/{t}" for v, t in zip(corners, corner_uv, strict=True) if v > 0) + "\n")
    return "".join(parts).encode("ascii")


def write_mtl(texture_file: str) -> bytes:
    """The one material: the texture, matt."""
    lines = [f"newmtl {MATERIAL_NAME}", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 1", f"map_Kd {texture_file}"]
    return ("\n".join(lines) + "\n").encode("ascii")


def _without_negative_zero(values: np.ndarray, decimals: int) -> list[list[float]]:
    """Rounded values in which -0.0 is 0.0: the sign of a vanishing number is no information."""
    return (np.round(values.astype(np.float64), decimals) + 0.0).tolist()
