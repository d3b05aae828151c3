"""Names of results that every system takes, each photo's and face's its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from focus_backend.export.names import face_names, plan_names, safe_name


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("portrait", "portrait"),
        ("Ann Lee (1)", "Ann Lee (1)"),
        ("münchen 日本", "münchen 日本"),
        ('a/b\\c:d*e?f"g<h>i|j', "a_b_c_d_e_f_g_h_i_j"),
        ("line\nbreak\x1b", "line_break_"),
        ("..", "photo"),
        (".hidden", "_.hidden"),
        ("-rf", "_-rf"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("end. .", "end"),
        ("", "photo"),
        ("bad\udcff", "bad_"),
    ],
)
def test_names_are_safe_everywhere(stem, name):
    assert safe_name(stem) == name


def test_long_names_are_cut_between_characters():
    assert len(safe_name("é" * 500).encode()) <= 120


def test_equal_stems_get_their_own_names():
    photos = [Path(p) for p in ("a/me.jpg", "b/me.jpg", "a/me.png", "a/ME.jpg", "b/me.jpeg", "you.jpg")]
    names = plan_names(photos)
    assert names[photos[0]] == "me"
    assert names[photos[1]] == "b_me_jpg"
    assert names[photos[5]] == "you"
    assert len({name.casefold() for name in names.values()}) == len(photos)


def test_faces_beyond_the_first_are_numbered():
    assert face_names("me", 3, set()) == ["me", "me-2", "me-3"]


def test_face_number_that_is_another_photo_s_name_is_skipped():
    assert face_names("me", 3, {"me-2"}) == ["me", "me-3", "me-4"]
