"""PNG files and the report."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from focus_backend.export.pictures import FACE_COLOUR, OUTLIER_COLOUR, PANEL_SIZE, draw_report, encode_mask, encode_png, face_box


def _decode(data: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return picture[:, :, ::-1] if picture.ndim == 3 else picture


def test_png_keeps_every_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    assert (_decode(encode_png(pixels)) == pixels).all()


def test_mask_is_0_and_255():
    mask = np.random.default_rng(0).random((20, 30)) > 0.5
    assert (_decode(encode_mask(mask)) == mask * 255).all()


def _scene(height=300, width=400):
    rows, columns = np.mgrid[:height, :width]
    region = (columns - 200) ** 2 + (rows - 150) ** 2 < 60**2
    return region, np.full((height, width, 3), 100, np.uint8), np.full((height, width, 3), 200, np.uint8)


def _panel(report, index):
    left = 12 + index * (PANEL_SIZE + 12)
    return report[40 : 40 + PANEL_SIZE, left : left + PANEL_SIZE].astype(int)


def test_report_shows_four_panels_of_the_face():
    region, photo, rendering = _scene()
    upper = np.arange(300)[:, None] < 150
    report = draw_report(photo, rendering, region & upper, region & ~upper)
    assert report.shape[1] == 4 * PANEL_SIZE + 5 * 12
    above, below = (PANEL_SIZE * 2 // 5, PANEL_SIZE // 2), (PANEL_SIZE * 3 // 5, PANEL_SIZE // 2)
    assert (_panel(report, 0)[above] == 100).all()
    assert (_panel(report, 1)[above] == 200).all()
    assert (_panel(report, 1)[below] == 200).all()
    assert (_panel(report, 2)[above] == 200).all()
    assert (_panel(report, 2)[below] == 100).all(), "an outlier shows the photo in the overlay"
    towards_face = _panel(report, 3)[above] - 100
    towards_outlier = _panel(report, 3)[below] - 100
    assert (np.sign(towards_face) == np.sign(np.array(FACE_COLOUR) - 100)).all()
    assert (np.sign(towards_outlier) == np.sign(np.array(OUTLIER_COLOUR) - 100)).all()


@pytest.mark.parametrize("place", [(0, 0), (299, 399), (150, 200)])
def test_report_of_a_face_at_the_edge(place):
    region, photo, rendering = _scene()
    region = np.roll(region, (place[0] - 150, place[1] - 200), (0, 1))
    assert draw_report(photo, rendering, region, np.zeros_like(region)).dtype == np.uint8


def test_report_without_any_face_pixel_shows_the_photo():
    _, photo, rendering = _scene()
    nothing = np.zeros(photo.shape[:2], bool)
    report = draw_report(photo, rendering, nothing, nothing)
    assert (_panel(report, 3)[PANEL_SIZE // 2, PANEL_SIZE // 2] == 100).all()


def test_box_is_square_holds_the_region_and_stays_in_the_photo():
    region = np.zeros((300, 400), bool)
    region[200:290, 20:80] = True
    left, top, right, bottom = face_box(region)
    assert right - left == bottom - top
    assert 0 <= left <= 20
    assert right >= 80
    assert top <= 200
    assert 290 <= bottom <= 300
