"""Files, folders and patterns that stand for photos."""

from __future__ import annotations

from pathlib import Path

from focus_backend.commands.inputs import find_photos


def _is_product(path: Path) -> bool:
    return path.name.startswith("made")


def _file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_folders_patterns_and_duplicates(tmp_path):
    a, b = _file(tmp_path / "p" / "a.png"), _file(tmp_path / "p" / "b.JPG")
    deep = _file(tmp_path / "p" / "deep" / "c.png")
    odd = _file(tmp_path / "p" / "me [1].png")
    (tmp_path / "p" / "notes.txt").write_text("x")
    _file(tmp_path / "p" / ".hidden.png")

    def found(*arguments: str | Path, recursive: bool = False) -> list[Path]:
        return [photo.path for photo in find_photos([str(x) for x in arguments], recursive, _is_product)]

    assert found(tmp_path / "p") == [a, b, odd]
    assert found(tmp_path / "p", recursive=True) == [a, b, deep, odd]
    assert found(tmp_path / "p" / "*.png") == [a, odd]
    assert found(tmp_path / "p" / "**" / "c.png") == [deep]
    assert found(odd) == [odd]
    assert found(a, tmp_path / "p" / "deep" / ".." / "a.png", tmp_path / "p") == [a, b, odd]
    assert found(tmp_path / "gone.jpg") == [tmp_path / "gone.jpg"]


def test_products_are_photos_only_where_they_are_named(tmp_path):
    photo, product = _file(tmp_path / "me.png"), _file(tmp_path / "made.png")
    for argument in (tmp_path, tmp_path / "*.png"):
        assert [found.path for found in find_photos([str(argument)], False, _is_product)] == [photo]
    assert [found.path for found in find_photos([str(product)], False, _is_product)] == [product]


def test_empty_folder_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    (found,) = find_photos([str(tmp_path / "empty")], False, _is_product)
    assert "--recursive" in found.error.remedy
