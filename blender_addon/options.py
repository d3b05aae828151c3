# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user may choose, as plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReconstructionOptions:
    """How a photo is reconstructed.

    Attributes:
        method: "fit", "network" or "refine"; "" for the backend's own choice.
        misfit: take the misfit prior off, where the backend's weights have one.
        faces: how many, largest first; 0 for all.
        texture_size: pixels a side to which textures are scaled down; 0 leaves them as they are.
    """

    method: str = ""
    misfit: bool = True
    faces: int = 1
    texture_size: int = 0


@dataclass(frozen=True)
class SceneOptions:
    """What lands in the scene.

    Attributes:
        unit_scale: Blender units a metre.
        expression: the head shows the photo's expression; otherwise it is neutral, and the shape key waits at 0.
        use_photo_texture: the material shows the photo's colours; otherwise the model's albedo.
        expressions: the model's expressions as shape keys.
        identity: sliders for the first components of identity.
        camera: a camera that matches the photo, with the photo behind.
        world: the fitted lighting as a world.
        mask: outliers as image, vertex group, face attribute and overlay.
        set_up_scene: the new camera, its render size and the world become the scene's, and colours are shown as the photo has them.
        show: the user's viewport turns to the new head.
    """

    unit_scale: float = 1.0
    expression: bool = True
    use_photo_texture: bool = True
    expressions: bool = True
    identity: bool = True
    camera: bool = True
    world: bool = True
    mask: bool = True
    set_up_scene: bool = True
    show: bool = True
