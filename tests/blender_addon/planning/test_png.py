from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from blender_addon.planning.png import encode_png

ASTRONAUT = Path(__file__).parents[3] / "docs" / "demo" / "astronaut.jpg"
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def decoded(data: bytes) -> tuple[np.ndarray, str]:
    with Image.open(io.BytesIO(data)) as image:
        # Also checks the checksums.
        image.load()
        return np.asarray(image), image.mode


@given(
    st.sampled_from([(), (1,), (3,), (4,)]).flatmap(
        lambda channels: arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda size: size + channels))
    )
)
def test_pillow_reads_the_very_pixels(pixels):
    read, mode = decoded(encode_png(pixels))
    np.testing.assert_array_equal(read, pixels.reshape(read.shape))
    assert mode == MODES[1 if pixels.ndim == 2 else pixels.shape[2]]


def test_pixels_that_do_not_lie_in_one_piece():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 4), dtype=np.uint8)[::2, ::-1, :3]
    np.testing.assert_array_equal(decoded(encode_png(pixels))[0], pixels)


def test_rows_that_repeat_cost_nothing():
    row = np.random.default_rng(0).integers(0, 256, (1, 300, 3), dtype=np.uint8)
    assert len(encode_png(row.repeat(200, axis=0))) < 3 * row.nbytes


def test_photo_gets_smaller():
    with Image.open(ASTRONAUT) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert len(encode_png(pixels)) < 0.6 * pixels.nbytes


@pytest.mark.parametrize("shape", [(0, 4), (4, 0, 3), (4,), (4, 4, 2), (2, 2, 2, 3)])
def test_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match="is no picture"):
        encode_png(np.zeros(shape, np.uint8))


def test_other_numbers_are_refused():
    with pytest.raises(ValueError, match="float32"):
        encode_png(np.zeros((4, 4), np.float32))
