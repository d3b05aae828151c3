"""The comparison as one HTML file with its pictures inside: no link leads out of it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from focus_backend.export.pictures import encode_jpeg
from train.evaluate.compare import Comparison, Run, comparison_curves, comparison_rows, number, test_rows
from train.evaluate.tables import Cell, show

PICTURE_WIDTH = 880
PICTURE_QUALITY = 78
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: #1c1e21; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: right; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; display: block; }
figcaption { color: #555; font-size: .9rem; }
@media (prefers-color-scheme: dark) {
  body { background: #16181b; color: #e6e8ea; } th, td { border-color: #3a3d42; } figcaption { color: #a5a8ad; }
}
"""


def comparison_page(comparison: Comparison, pictures: int) -> str:
    """The page: tables, cumulative curves, and the worst and the best `pictures` photos with every run's report."""
    names = ", ".join(run.name for run in comparison.runs)
    counts = ", ".join(f"{count} ({name})" for name, count in comparison.shared.items())
    body = [f"<h1>Comparison</h1><p>Photos that all runs share: {escape(counts)}. Errors in mm, RMSE of 0 to 255.</p>"]
    body.append(_table(*comparison_rows(comparison)))
    if comparison.tests:
        body.append("<h2>Tests</h2>" + _table(*test_rows(comparison)))
    curves = comparison_curves(comparison)
    if curves is not None:
        body.append(f"<h2>Cumulative error</h2>{_image(curves, 'png', 'cumulative curves of ' + names)}")
    worst = list(comparison.ranking[:pictures])
    best = [photo for photo in comparison.ranking[::-1][:pictures] if photo not in worst]
    for title, photos in (("Worst photos", worst), ("Best photos", best)):
        if photos:
            body.append(f"<h2>{title}</h2>" + "".join(_photo(comparison, photo) for photo in photos))
    head = f'<meta charset="utf-8"><title>Comparison of {escape(names)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{"".join(body)}</body></html>\n'


def _table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = ("".join(f"<td>{escape(show(cell))}</td>" for cell in row) for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"


def _photo(comparison: Comparison, photo: str) -> str:
    """A photo's report of every run under each other."""
    return f"<h3>{escape(photo)}</h3>" + "".join(_run_figure(run, photo) for run in comparison.runs)


def _run_figure(run: Run, photo: str) -> str:
    entries = {name: run.scores(name).get(photo) for name in run.reports}
    labels = {"now": ("mean", "mm"), "segmentation": ("F1", ""), "photometric": ("RMSE", "")}
    found = [(entry, *labels[name]) for name, entry in entries.items() if entry is not None]
    said = [f"{key} {show(number(entry.get(key)))} {unit}".strip() for entry, key, unit in found]
    folder = next((entry["folder"] for entry in entries.values() if entry and "folder" in entry), None)
    picture = _small_report(Path(folder)) if folder else None
    shown = _image(picture, "jpeg", f"report of {run.name} for {photo}") if picture else "<p>no picture</p>"
    return f"<figure>{shown}<figcaption>{escape(run.name)}: {escape(', '.join(said) or 'failed')}</figcaption></figure>"


def _small_report(folder: Path) -> bytes | None:
    """The result's report (photo, reconstruction, overlay, mask) at the page's width; None where it is gone."""
    try:
        pixels = cv2.imdecode(np.frombuffer((folder / "report.jpg").read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
    if pixels is None:
        return None
    scale = min(1.0, PICTURE_WIDTH / pixels.shape[1])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return encode_jpeg(np.ascontiguousarray(small[:, :, ::-1], dtype=np.uint8), PICTURE_QUALITY)


def _image(data: bytes, kind: str, words: str) -> str:
    return f'<img alt="{escape(words)}" src="data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}">'
