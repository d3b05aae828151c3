"""Photos of every sort for the soak and the faults: good ones, and what users and attackers send instead."""

from __future__ import annotations

import io
import random
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.serving.quick import GOOD_PHOTO


@dataclass(frozen=True)
class Sample:
    """A photo, and the codes of answers that are right for it.

    Attributes:
        kind: in a word or two.
        data: of the file, or its pixels [height width 3].
        expected: "result" or the code of an error; what else a soak brings about by itself is always right.
    """

    kind: str
    data: bytes | np.ndarray
    expected: frozenset[str]


def real_samples(photo: Path, seed: int) -> list[Sample]:
    """For the real pipeline: most of them good, several made from a photo with one face."""
    image = Image.open(photo).convert("RGB")
    small = image.resize((image.width // 2, image.height // 2))
    two = Image.new("RGB", (2 * small.width, small.height))
    two.paste(small, (0, 0))
    two.paste(small, (small.width, 0))
    data = photo.read_bytes()
    good, bad = frozenset({"result"}), frozenset({"photo"})
    return [
        Sample("good", data, good),
        Sample("good, PNG", _encoded(small, "PNG"), good),
        Sample("good, small", _encoded(small, "JPEG"), good),
        Sample("good, pixels", np.ascontiguousarray(np.asarray(small)), good),
        Sample("two faces", _encoded(two, "JPEG"), good),
        # Noise fools a detector now and then.
        Sample("no face", _encoded(_noise(seed), "PNG"), frozenset({"no-face", "fit", "result"})),
        Sample("truncated", data[: len(data) // 2], bad),
        Sample("text", b"this is no photo\n" * 50, bad),
        Sample("huge header", png_header(60_000, 60_000), bad),
        Sample("empty", b"", bad),
    ]


def quick_samples() -> list[Sample]:
    """For the tests' quick pipelines, which do what the bytes say."""
    orders = {
        "good": (GOOD_PHOTO, "result"),
        "good, slow": (b"sleep 0.5", "result"),
        "good, slower": (b"sleep 1.5", "result"),
        "good, large answer": (b"bytes 4000000", "result"),
        "no face": (b"no-face", "no-face"),
        "bug": (b"raise", "internal"),
    }
    return [Sample(kind, order, frozenset({expected})) for kind, (order, expected) in orders.items()]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims so many pixels and holds none."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    packed = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)) for name, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + packed


def _noise(seed: int) -> Image.Image:
    return Image.fromarray(np.frombuffer(random.Random(seed).randbytes(256 * 256 * 3), np.uint8).reshape(256, 256, 3))


def _encoded(image: Image.Image, kind: str) -> bytes:
    written = io.BytesIO()
    image.save(written, kind)
    return written.getvalue()
