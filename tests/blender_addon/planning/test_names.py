from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blender_addon.planning.names import head_name, is_key_name, photo_name


@pytest.mark.parametrize(
    ("photo", "name"),
    [
        ("/photos/astronaut.jpg", "astronaut"),
        ("my  holiday\tpicture.jpeg", "my holiday picture"),
        ("IMG.2024.jpg", "IMG.2024"),
        ("Zoë.png", "Zoë"),
        ("Zoe\u0308.png", "Zoë"),
        ("写真.png", "写真"),
        ("\u200b.png", "photo"),
        (" .png", "photo"),
    ],
)
def test_stem_is_cleaned(photo, name):
    assert photo_name(Path(photo)) == name


def test_letter_is_not_cut_in_half():
    assert photo_name(Path("写" * 30 + ".png")) == "写" * 13


def test_faces_are_numbered_from_the_second_on():
    assert [head_name(Path("astronaut.jpg"), index) for index in range(3)] == ["astronaut", "astronaut 2", "astronaut 3"]


@given(st.text(st.characters(codec=None, exclude_characters="/\0"), min_size=1))
def test_any_name_fits_blender(stem):
    name = photo_name(Path(f"{stem}.jpg"))
    assert name
    assert name == name.strip()
    assert name.isprintable()
    assert len(f"{name} 99 outlier overlay.001".encode()) <= 63


@pytest.mark.parametrize("name", ["jawOpen", "Mund auf", "é" * 31])
def test_names_that_blender_keeps(name):
    assert is_key_name(name)


@pytest.mark.parametrize("name", ["", "Basis", "Fitted expression", "Identity 1", "a\nb", "a\0", "\ud800", "x" * 64, "é" * 32])
def test_names_that_blender_would_change_or_that_are_our_own(name):
    assert not is_key_name(name)
