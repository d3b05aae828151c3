"""Messages survive the wire; limits hold to the byte; nothing but the standard library is needed."""

from __future__ import annotations

import array
import ast
import dataclasses
import subprocess
import sys
import tracemalloc
import types
import typing
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import zmq
from hypothesis import given, settings

from focus_backend.serving import wire
from focus_backend.serving.wire import ANSWERS, REQUESTS, Array, Message, Ping, Reconstruct, WireError, WireLimits, pack, unpack

# The checker of signatures draws which items of a list it looks at.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
# Two halves of a surrogate pair would come back as one character.
TEXT = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | INTEGERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
IDS = st.text("abcXYZ019_.:-", min_size=1, max_size=64)


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Anything that a field of this type may hold."""
    plain = {str: TEXT, int: INTEGERS, float: NUMBERS, bool: st.booleans(), Any: JSON}
    if annotation in plain:
        return plain[annotation]
    if dataclasses.is_dataclass(annotation):
        hints = typing.get_type_hints(annotation)
        return st.builds(annotation, **{entry.name: values_of(hints[entry.name]) for entry in dataclasses.fields(annotation)})
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(st.none() if argument is type(None) else values_of(argument) for argument in arguments))
    if origin is list:
        return st.lists(values_of(arguments[0]), max_size=3)
    assert origin is dict
    assert arguments[0] is str
    return st.dictionaries(TEXT, values_of(arguments[1]), max_size=3)


@st.composite
def arrays_of(draw: Any) -> Array:
    dtype = draw(st.sampled_from(sorted(wire.ITEM_BYTES)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    size = wire.ITEM_BYTES[dtype] * int(np.prod(shape))
    return Array(dtype, shape, draw(st.binary(min_size=size, max_size=size)))


NAMES = st.from_regex(r"[a-z0-9_-][a-z0-9_.-]{0,8}(/[a-z0-9_-][a-z0-9_.-]{0,8}){0,2}", fullmatch=True)


def one_ping(**changes: Any) -> Message:
    return dataclasses.replace(Message("p-1", Ping()), **changes)


def result_with(document: Any) -> wire.Result:
    return wire.Result([wire.Face(0, [], {"document": document})], wire.ModelInfo("tiny", "", 0, []), [], 0.0)


def nested(depth: int) -> list[Any]:
    """Lists in lists."""
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize("kind", [*REQUESTS, *ANSWERS], ids=lambda kind: kind.kind)
def test_every_message_survives_the_wire(kind: type) -> None:
    @settings(max_examples=40, deadline=None)
    @given(IDS, values_of(kind), st.dictionaries(NAMES, arrays_of(), max_size=4), st.text("0123456789abcdef!~", max_size=256))
    def survives(message_id: str, body: Any, arrays: dict[str, Array], secret: str) -> None:
        message = Message(message_id, body, arrays, secret)
        assert unpack(pack(message), [kind]) == message

    survives()


def test_half_a_surrogate_survives() -> None:
    message = one_ping(body=Reconstruct(name="photo\udce9.jpg"))
    assert unpack(pack(message), REQUESTS) == message


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, zmq.Frame])
def test_frames_may_be_anything_with_bytes_and_are_not_copied(wrap: Any) -> None:
    message = one_ping(arrays={"pixels": Array("float32", (2,), b"\0\0\0\0\0\0\x80?"), "none": Array("int32", (0, 3), b"")})
    frames = [wrap(bytes(frame)) for frame in pack(message)]
    read = unpack(frames, REQUESTS)
    assert read == message
    assert isinstance(read.arrays["pixels"].data, memoryview)
    assert read.arrays["pixels"].data.obj is memoryview(frames[1]).obj


@pytest.mark.parametrize(
    "source",
    [
        b"photo",
        b"",
        array.array("f", [1.0, 2.0]),
        array.array("i", [1, -2]),
        array.array("q", [1, -2]),
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.arange(6, dtype=np.uint32),
        np.array([True, False]),
        np.array(2.5),
        np.zeros((0, 3), np.float32),
        np.arange(6, dtype=np.uint8)[1:5],
    ],
    ids=repr,
)
def test_arrays_of_contiguous_buffers(source: Any) -> None:
    packed = Array.of(source)
    expected = np.asarray(memoryview(source))
    read = unpack(pack(one_ping(arrays={"a": packed})), REQUESTS).arrays["a"]
    assert np.array_equal(np.frombuffer(read.data, read.dtype).reshape(read.shape), expected)


@pytest.mark.parametrize("code", ["i", "l", "q", "I"])
def test_widths_of_c_types_are_taken_from_the_item(code: str) -> None:
    numbers = array.array(code, [1])
    assert Array.of(numbers).dtype == f"{'uint' if code.isupper() else 'int'}{8 * numbers.itemsize}"


@pytest.mark.parametrize(
    "source",
    [
        np.zeros(3, ">f4"),
        np.zeros((4, 4), np.float32)[:, ::2],
        np.zeros((4, 3), np.float32).T,
        np.zeros(3, np.float16),
        np.zeros(3, np.int8),
        np.zeros(3, np.uint64),
        np.zeros(3, complex),
        np.zeros(3, [("x", "f4")]),
        np.array([None]),
        np.zeros((1, 1, 1, 1, 1), np.uint8),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}{a.strides}",
)
def test_other_arrays_are_not_sent(source: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        Array.of(source)


@pytest.mark.parametrize(
    "message",
    [
        one_ping(id=""),
        one_ping(id="a b"),
        one_ping(id="x" * 65),
        one_ping(secret="\u00fc"),
        one_ping(secret="x" * 257),
        one_ping(body=wire.Progress("fit", float("nan"))),
        one_ping(body=result_with({"x": float("inf")})),
        one_ping(body=result_with({"x": np.float32(1)})),
        one_ping(body=result_with({(1, 2): 1})),
        one_ping(body=result_with(nested(100_000))),
        one_ping(arrays={"../x": Array("uint8", (1,), b"1")}),
        one_ping(arrays={"x": Array("object", (1,), b"1")}),
        one_ping(arrays={"x": Array("uint8", (2,), b"1")}),
        one_ping(arrays={"x": Array("uint8", (-1, -1), b"1")}),
        one_ping(arrays={"x": Array("uint8", (1, 1, 1, 1, 1), b"1")}),
        one_ping(arrays={"x": Array("uint8", (2,), memoryview(b"1234")[::2])}),
    ],
)
def test_what_could_not_be_read_is_not_packed(message: Message) -> None:
    with pytest.raises(ValueError, match=r"."):
        pack(message)


def message_of(header_bytes: int, data_bytes: tuple[int, ...]) -> list[bytes]:
    """Frames of a good message with exactly so many bytes."""
    arrays = {f"a{i}": Array("uint8", (size,), bytes(size)) for i, size in enumerate(data_bytes)}
    header, *data = (bytes(frame) for frame in pack(one_ping(arrays=arrays)))
    return [header + b" " * (header_bytes - len(header)), *data]


LIMITS = WireLimits(header_bytes=400, frames=3, frame_bytes=500, total_bytes=1000)


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        (message_of(400, ()), message_of(401, ())),
        (message_of(300, (1, 1)), message_of(300, (1, 1, 1))),
        (message_of(300, (500,)), message_of(300, (501,))),
        (message_of(300, (400, 300)), message_of(300, (400, 301))),
    ],
    ids=["header", "frames", "frame", "total"],
)
def test_limits_hold_to_the_byte(allowed: list[bytes], refused: list[bytes]) -> None:
    assert unpack(allowed, REQUESTS, LIMITS).id == "p-1"
    with pytest.raises(WireError) as caught:
        unpack(refused, REQUESTS, LIMITS)
    assert caught.value.code == "too-large"


def test_limits_on_ids_names_and_numbers_hold_to_the_character() -> None:
    at_the_edge = b'{"focus":1,"type":"ping","id":"%s","secret":"%s","arrays":[{"name":"%s","dtype":"uint8","shape":[1,1,1,1]}],"x":%s}'
    edges = (64, 256, 128, 400)
    read = unpack([at_the_edge % tuple(b"1" * edge for edge in edges), b"1"], REQUESTS)
    assert (len(read.id), len(read.secret), [len(name) for name in read.arrays]) == (64, 256, [128])
    for beyond in range(4):
        counts = [edge + (i == beyond) for i, edge in enumerate(edges)]
        with pytest.raises(WireError, match=r"id|secret|name|JSON"):
            unpack([at_the_edge % tuple(b"1" * count for count in counts), b"1"], REQUESTS)


def test_no_memory_is_taken_for_a_size_that_is_only_claimed() -> None:
    header = b'{"focus":1,"type":"ping","id":"a","arrays":[{"name":"x","dtype":"float64","shape":[2147483647,1000]}]}'
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="not its type times its shape"):
            unpack([header, b""], REQUESTS)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_large_data_are_never_copied() -> None:
    pixels = np.zeros(32_000_000, np.uint8)
    tracemalloc.start()
    try:
        unpack(pack(one_ping(arrays={"pixels": Array.of(pixels)})), REQUESTS)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_logged_message_does_not_tell_its_secret() -> None:
    assert "5e5e" not in repr(one_ping(secret="5e5e"))


ALONE = """
import importlib.util, sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names:
            raise ImportError(f"{name} is not of the standard library")

sys.meta_path.insert(0, Nothing())
spec = importlib.util.spec_from_file_location("wire_alone", sys.argv[1])
wire = sys.modules["wire_alone"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(wire)
message = wire.Message("a", wire.Reconstruct(), {"photo": wire.Array.of(b"123")})
assert wire.unpack(wire.pack(message), wire.REQUESTS) == message
print("alone")
"""


def test_it_runs_by_itself_as_blenders_add_on_has_it() -> None:
    path = str(Path(wire.__file__))
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", ALONE, path], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "alone"), ended.stderr


def test_it_reads_as_python_3_10() -> None:
    ast.parse(Path(wire.__file__).read_text("utf-8"), feature_version=(3, 10))
