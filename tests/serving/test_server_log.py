"""The log: its lines, and that it never gets in the way."""

from __future__ import annotations

import json
import os
import time

from focus_backend.serving.log import EventLog


def _lines(path) -> list[str]:
    return path.read_text().splitlines()


def _log_to(path, form: str) -> EventLog:
    return EventLog(form, os.open(path, os.O_WRONLY | os.O_CREAT))


def test_text_is_one_line_an_event_whatever_the_fields_hold(tmp_path):
    log = _log_to(tmp_path / "log", "text")
    log("started", worker=1, waited=0.123456789, reason='two words and a "quote"\nand a line')
    log("plain", level="warning")
    log.close()
    first, second = _lines(tmp_path / "log")
    assert first.endswith(r'info    started worker=1 waited=0.123457 reason="two words and a \"quote\"\nand a line"')
    assert second.endswith("warning plain")


def test_json_can_be_read_back(tmp_path):
    log = _log_to(tmp_path / "log", "json")
    log("failed", job=3, code="photo", seconds=float("inf"), nothing=None, other=("a", 1))
    log.close()
    (line,) = _lines(tmp_path / "log")
    entry = json.loads(line)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "info",
        "event": "failed",
        "job": 3,
        "code": "photo",
        "seconds": "inf",
        "nothing": None,
        "other": "('a', 1)",
    }


def test_a_pipe_that_nobody_reads_does_not_hold_it_up():
    reading, writing = os.pipe()
    log = EventLog("text", writing)
    started = time.monotonic()
    for number in range(5000):
        log("event", number=number, text="x" * 200)
    log.close(0.1)
    assert time.monotonic() - started < 10
    os.close(reading)
    os.close(writing)


def test_a_closed_file_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    log = EventLog("text", writing)
    log("event")
    log.close()
    os.close(writing)
    log("later")
