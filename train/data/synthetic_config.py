"""What synthetic training faces are like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(ge=0)]


class SyntheticConfig(BaseModel):
    """Shares (0 to 1, of all pictures unless said otherwise) and ranges."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # People, in standard deviations of the face model's prior.
    shape_spread: Spread = 1.0
    albedo_spread: Spread = 0.7
    # The first component of albedo, from dark to light skin, is drawn evenly up to so many: all tones are to be seen equally often.
    largest_tone: Spread = 2.5
    # Faces without any of the random expressions; and, each for itself, smiling, opening the mouth, closing the eyes.
    neutral_share: Share = 0.2
    usual_share: Share = 0.2
    # Heads turned evenly up to largest_yaw (degrees); the others are turned normally with 15 degrees.
    wide_yaw_share: Share = 0.4
    largest_yaw: Annotated[float, Field(ge=0, le=80)] = 65.0
    # One strong light from the side.
    hard_light_share: Share = 0.25
    # Errors of the crop, standard deviations: share of its size, share of its side, degrees.
    scale_jitter: Spread = 0.05
    shift_jitter: Spread = 0.03
    roll_jitter: Spread = 4.0
    # Standard deviation of the logarithm of the camera's distance, which is 80 cm in the middle, and photos from 15 to 40 cm besides;
    # without both all are taken from a metre, as the crops' camera has it, and theta is exact.
    perspective_spread: Spread = 0.45
    close_share: Share = 0.12
    # Pictures with anything in front of the face besides hair and glasses.
    occluded_share: Share = 0.5
    # Of those: something beside the face's surface (hand, strands, writing); cloth, masks, hats and other shapes; some have both.
    hand_share: Share = 0.6
    cover_share: Share = 0.6
    # Hair; without, the head is bald.
    hair_share: Share = 0.85
    # Of heads with hair: single strands over the forehead, and hair that stands out.
    fringe_share: Share = 0.2
    bristle_share: Share = 0.3
    # Stubble to full beards; what hides the skin is no face.
    beard_share: Share = 0.15
    glasses_share: Share = 0.25
    # Shoulders; without, the neck ends in the air.
    clothes_share: Share = 0.9
    # Shine of the skin, and edges of shadows across the face. They belong to the face: the mask stays 1.
    gloss_share: Share = 0.7
    # Heads that take light from themselves: sockets, nostrils, below the chin. The others are lit as the face model alone is.
    self_shadow_share: Share = 0.95
    cast_shadow_share: Share = 0.2
    # Photos (a folder of pictures) whose pieces become backgrounds and occluders, and how often they do.
    photos: Path | None = None
    photo_share: Share = 0.5
    # Defects of the photo.
    blur_share: Share = 0.3
    low_resolution_share: Share = 0.12
    noise_share: Share = 0.35
    jpeg_share: Share = 0.4
    colour_share: Share = 0.6
    grey_share: Share = 0.03
    # Crops that may reach over the border of their photo (most of them do): black there, no face, and not `inside`.
    border_share: Share = 0.08

    @classmethod
    def clean(cls, **changes: Any) -> SyntheticConfig:
        """Bare heads in good photos, with exact theta: every share of things and defects is zero."""
        return cls(**{**_NOTHING, **changes})

    @classmethod
    def portraits(cls, **changes: Any) -> SyntheticConfig:
        """Hair, clothes and good light, nothing in front of the face, no defects: what a recognition network is to start with."""
        some = {"hair_share": 0.9, "clothes_share": 0.9, "gloss_share": 0.5, "self_shadow_share": 0.9, "colour_share": 0.5}
        return cls(**{**_NOTHING, **some, **changes})

    @classmethod
    def hard(cls, **changes: Any) -> SyntheticConfig:
        """More of everything: for the last steps of segmentation training."""
        values = {"occluded_share": 0.8, "hand_share": 0.7, "cover_share": 0.7, "glasses_share": 0.35, "wide_yaw_share": 0.5, **changes}
        return cls(**values)


_NOTHING = dict.fromkeys(
    [
        "perspective_spread",
        "close_share",
        "self_shadow_share",
        "occluded_share",
        "hair_share",
        "fringe_share",
        "bristle_share",
        "beard_share",
        "glasses_share",
        "clothes_share",
        "gloss_share",
        "cast_shadow_share",
        "photo_share",
        "blur_share",
        "low_resolution_share",
        "noise_share",
        "jpeg_share",
        "colour_share",
        "grey_share",
        "border_share",
    ],
    0.0,
)
