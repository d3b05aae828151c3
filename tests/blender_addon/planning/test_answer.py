from __future__ import annotations

import numpy as np
import pytest

from blender_addon.errors import AddonError
from blender_addon.planning.answer import read_array, read_count, read_indices, read_member, read_numbers
from focus_backend.serving import wire


def arrays(values: np.ndarray) -> dict[str, wire.Array]:
    return {"x": wire.Array.of(values)}


def test_array_is_what_was_sent():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(read_array(arrays(values), "x", "float32", (None, 3)), values)


@pytest.mark.parametrize("shape", [(3, 3), (2,), (None, 2), (2, 3, None)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(AddonError, match="array x of float32") as caught:
        read_array(arrays(np.zeros((2, 3), np.float32)), "x", "float32", shape)
    assert caught.value.code == "answer"


def test_empty_arrays_other_types_and_missing_ones_are_refused():
    with pytest.raises(AddonError, match="array x"):
        read_array(arrays(np.zeros((0, 3), np.float32)), "x", "float32", (None, 3))
    with pytest.raises(AddonError, match="float64"):
        read_array(arrays(np.zeros((2, 3))), "x", "float32", (None, 3))
    with pytest.raises(AddonError, match="no array x"):
        read_array({}, "x", "float32", (None, 3))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(AddonError, match="not finite"):
        read_array(arrays(np.array([1, value], np.float32)), "x", "float32", (2,))


@pytest.mark.parametrize("quad", [[0, 1, 2, 9], [0, -1, 2, 3], [0, 1, 2, -2]])
def test_indices_beyond_their_targets_are_refused(quad):
    with pytest.raises(AddonError, match="beyond its 9"):
        read_indices(arrays(np.array([quad], np.int32)), "x", (None, 4), 9)


def test_triangles_are_allowed():
    assert read_indices(arrays(np.array([[0, 1, 8, -1]], np.int32)), "x", (None, 4), 9).tolist() == [[0, 1, 8, -1]]


def test_members_of_the_document():
    document = {"camera": {"focal": 5, "size": 3.0}}
    assert read_member(document, "camera.focal") == 5
    assert read_numbers(document, "camera.focal", ()) == 5.0
    assert read_count(document, "camera.size") == 3
    for path in ("camera.none", "none", "camera.focal.deeper"):
        with pytest.raises(AddonError, match=path):
            read_member(document, path)


@pytest.mark.parametrize("value", [None, "x", [1, 2], [[1, 2, 3]], [1, None, 3], [1, "a", 3], {"a": 1}, [1, 2, np.nan], [[1], [2, 3], 4]])
def test_members_that_are_no_such_numbers(value):
    with pytest.raises(AddonError, match="axis"):
        read_numbers({"axis": value}, "axis", (3,))


@pytest.mark.parametrize("value", [0, -4, 2.5, 2**31, 1e300])
def test_sizes_that_are_none(value):
    with pytest.raises(AddonError, match="width"):
        read_count({"width": value}, "width")


@pytest.mark.parametrize("value", [1e9, -1e30])
def test_values_so_large_that_products_overflow_are_refused(value):
    with pytest.raises(AddonError, match="beyond"):
        read_array(arrays(np.array([1, value], np.float32)), "x", "float32", (2,))
    with pytest.raises(AddonError, match="axis"):
        read_numbers({"axis": [1.0, value * 10]}, "axis", (2,))


def test_arrays_of_nothing_that_were_asked_for_are_read():
    assert read_array(arrays(np.zeros((0, 3), np.float32)), "x", "float32", (0, 3)).shape == (0, 3)


def test_whole_numbers_beyond_floating_point_are_refused():
    with pytest.raises(AddonError, match="axis"):
        read_numbers({"axis": [10**400]}, "axis", (1,))
