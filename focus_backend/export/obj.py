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
    is_corner = quads >= 0
    corners = np.stack([quads, quad_uv], -1)[is_corner] + 1
    parts = [_FRAME, f"mtllib {material_file}\n", "o face\n"]
    parts += ["v %.4f %.4f %.4f\n" * len(vertices) % _rounded(vertices, 4), "vt %.6f %.6f\n" * len(uv) % _rounded(uv, 6)]
    parts += [f"usemtl {MATERIAL_NAME}\n", "s 1\n"]
    lines = "".join("f" + " %d/%d" * count + "\n" for count in is_corner.sum(1).tolist())
    parts.append(lines % tuple(corners.ravel().tolist()))
    return "".join(parts).encode("ascii")


def write_mtl(texture_file: str) -> bytes:
    """The one material: the texture, matt."""
    lines = [f"newmtl {MATERIAL_NAME}", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 1", f"map_Kd {texture_file}"]
    return ("\n".join(lines) + "\n").encode("ascii")


def _rounded(values: Float[np.ndarray, "n d"], decimals: int) -> tuple[float, ...]:
    """Rounded values, one after the other, in which -0.0 is 0.0: the sign of a vanishing number is no information."""
    return tuple((np.round(values.astype(np.float64), decimals) + 0.0).ravel().tolist())
