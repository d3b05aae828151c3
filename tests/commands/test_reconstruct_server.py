"""`reconstruct --server`: the files, lines and exit codes of a local run, and what only a server can do to a batch."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from commands.conftest import PATIENCE, content_of, save_photo, start_files_server
from focus_backend.cli import app
from focus_backend.commands.batch import BatchOptions, work_through
from focus_backend.commands.inputs import PhotoInput
from focus_backend.commands.reconstruct import ReconstructOptions, reconstruct_photos
from focus_backend.commands.server_work import ServerWork
from focus_backend.errors import ConfigError, ConnectionLostError, ServerError
from focus_backend.serving import wire
from focus_backend.serving.client import Client

FIVE = [[30.0, 40.0], [70.0, 40.0], [50.0, 55.0], [35.0, 70.0], [65.0, 70.0]]


@pytest.fixture
def run(plain_reconstructor, files_server, capsys):
    """Run `reconstruct` here or at the server: (exit code, stdout lines, stderr lines), without times and the output's name."""

    def run(*photos: Path, out: Path, at_server: bool, **options):
        server = str(files_server.ready_path) if at_server else None
        given = ReconstructOptions([str(p) for p in photos], out, server=server, **options)
        code = reconstruct_photos(given, None if at_server else lambda: plain_reconstructor)
        return code, *(_plain(lines, out) for lines in capsys.readouterr())

    return run


def _plain(text: str, out: Path) -> list[str]:
    text = text.replace(str(out), "OUT")
    return re.sub(r'(?<="seconds": )[0-9.]+|[0-9.]+(?= s\b)', "T", text).splitlines()


def _both(run, tmp_path, *photos: Path, **options):
    """A local run and one at the server, which have to be the same; the exit code and lines."""
    outs = {at_server: tmp_path / f"out-{at_server}" for at_server in (False, True)}
    local, at_server = (run(*photos, out=outs[where], at_server=where, **options) for where in (False, True))
    assert at_server == local
    files = [content_of(out) if out.exists() else None for out in outs.values()]
    assert files[0] == files[1]
    return local


def test_files_lines_and_codes_are_those_of_a_local_run(run, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "rights.jpg").symlink_to(tmp_path / "rights.jpg")
    good = [save_photo(tmp_path / f"{name}.png", seed) for seed, name in enumerate(("a", "three_faces", "b", "c", "nobody"))]
    bad = [tmp_path / f"{name}.jpg" for name in ("gone", "empty", "text", "rights")]
    code, out, err = _both(run, tmp_path, *good[:2], *bad, *good[2:])
    assert code == 2
    assert "9 photos: 4 done (6 faces), 0 skipped, 5 failed" in out[-1]
    assert len([line for line in err if line.startswith("error: ")]) == 5


@pytest.mark.parametrize("options", [{"faces": "2"}, {"texture_size": 16}, {"json": True}, {"method": "fit", "misfit": False}])
def test_options_do_the_same(run, tmp_path, options):
    code, *_ = _both(run, tmp_path, save_photo(tmp_path / "three_faces.png"), tmp_path / "gone.jpg", **options)
    assert code == 2


def test_photos_that_are_done_are_skipped_and_foreign_folders_left_alone(run, tmp_path):
    first, second = save_photo(tmp_path / "a.png", 1), save_photo(tmp_path / "b.png", 2)
    for where in (False, True):
        (tmp_path / f"out-{where}" / "b").mkdir(parents=True)
        (tmp_path / f"out-{where}" / "b" / "mine.txt").write_text("mine")
        run(first, out=tmp_path / f"out-{where}", at_server=False)
    code, out, err = _both(run, tmp_path, first, second, skip_existing=True)
    assert code == 2
    assert "skipped" in out[0]
    assert "holds other files" in err[0]


def test_result_of_another_photo_is_named(run, tmp_path):
    for where in (False, True):
        run(save_photo(tmp_path / "old" / "me.png", 1), out=tmp_path / f"out-{where}", at_server=False)
    _, _, err = _both(run, tmp_path, save_photo(tmp_path / "new" / "me.png", 2))
    assert any("another photo" in line for line in err)


def test_a_bug_of_the_server_costs_one_photo_and_is_exit_1(run, tmp_path):
    photos = save_photo(tmp_path / "crash.png"), save_photo(tmp_path / "b.png")
    code, _, err = run(*photos, out=tmp_path / "out", at_server=True)
    assert code == 1
    assert os.listdir(tmp_path / "out") == ["b"]
    assert any("crash.png" in line and "ZeroDivisionError" in line for line in err)


def _landmarks(tmp_path: Path, points: list) -> Path:
    path = tmp_path / "landmarks.json"
    path.write_text(json.dumps(points))
    return path


@pytest.mark.parametrize("points", [FIVE, [[5000.0, 40.0], *FIVE[1:]]])
def test_own_landmarks(run, tmp_path, points):
    code, *_ = _both(run, tmp_path, save_photo(tmp_path / "me.png"), landmarks_file=_landmarks(tmp_path, points))
    assert code == (0 if points is FIVE else 2)


def test_every_option_reaches_the_server(run, tmp_path):
    options = {"method": "network", "misfit": False, "faces": "3", "texture_size": 64, "landmarks_file": _landmarks(tmp_path, FIVE)}
    _, _, err = run(save_photo(tmp_path / "options.png"), out=tmp_path / "out", at_server=True, **options)
    told = json.loads(err[0][err[0].index("{") :])
    assert told.pop("landmarks")["points"] == dict(
        zip(["right_eye", "left_eye", "nose_tip", "mouth_right", "mouth_left"], FIVE, strict=True)
    )
    assert told == {"method": "network", "misfit": False, "faces": 3, "texture_size": 64}
    _, _, err = run(tmp_path / "options.png", out=tmp_path / "out", at_server=True)
    assert json.loads(err[0][err[0].index("{") :])["method"] is None, "auto leaves it to the server"


def test_a_method_the_server_lacks_ends_the_batch(run, tmp_path):
    with pytest.raises(ConfigError, match="fit, network"):
        run(save_photo(tmp_path / "a.png"), save_photo(tmp_path / "b.png"), out=tmp_path / "out", at_server=True, method="refine")
    assert not (tmp_path / "out").exists()


def test_photos_are_under_way_together_and_told_in_their_order(run, tmp_path):
    names = ["meet1", "a", "meet2", "nap", "b"]
    code, out, _ = run(*(save_photo(tmp_path / f"{name}.png") for name in names), out=tmp_path / "out", at_server=True)
    assert code == 0
    assert [re.search(r"(\w+)\.png", line)[1] for line in out[:-1]] == names


def test_options_of_the_server_are_refused(tmp_path):
    arguments = ["reconstruct", str(save_photo(tmp_path / "a.png")), "-o", str(tmp_path / "out"), "--server", "auto"]
    for name in ("model", "weights", "device", "landmarks", "threads"):
        done = CliRunner().invoke(app, [*arguments, f"--{name}", "1"])
        assert done.exit_code == 2
        assert f"--{name} cannot go with --server" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    done = CliRunner().invoke(app, [*arguments[:4], "--key", "a.key"])
    assert done.exit_code == 2
    assert "--key" in done.stderr


@pytest.mark.parametrize("server", ["auto", "nowhere.json", "tcp://127.0.0.1:9", "tcp://example.org:5555", "ftp://x"])
def test_no_server_is_one_line_and_exit_2(tmp_path, monkeypatch, server):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    arguments = ["reconstruct", str(save_photo(tmp_path / "a.png")), "-o", str(tmp_path / "out"), "--server", server]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert [line[:7] for line in done.stderr.splitlines()] == ["error: "]
    assert not (tmp_path / "out").exists()


def test_torch_is_never_imported(files_server, tmp_path):
    arguments = ["reconstruct", str(save_photo(tmp_path / "a.png")), "-o", str(tmp_path / "out"), "--server", str(files_server.ready_path)]
    arguments += ["--landmarks-file", str(_landmarks(tmp_path, FIVE))]
    code = f"""
import sys
from focus_backend.cli import app
try:
    app({arguments!r})
except SystemExit as end:
    print(end.code, [name for name in ("torch", "numba", "mediapipe", "scipy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_a_busy_server_is_waited_for_and_told_once(start_server, tmp_path, capsys):
    server = start_server(workers=1, limits={"queue": 1})
    nap = save_photo(tmp_path / "nap.png").read_bytes()
    with Client(server.credentials) as other:
        others = [other.submit(nap, name="nap.png", parts=["files"]) for _ in range(2)]
        while other.status().queued < 1:
            time.sleep(0.01)
        photos = [str(save_photo(tmp_path / f"{name}.png")) for name in "abcd"]
        code = reconstruct_photos(ReconstructOptions(photos, tmp_path / "out", server=str(server.ready_path)))
        assert all(pending.result(PATIENCE).message.faces for pending in others)
    err = capsys.readouterr().err.splitlines()
    assert code == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["a", "b", "c", "d"]
    assert 1 <= len([line for line in err if line.startswith("note: ") and "waiting until it takes more" in line]) <= 4


def _work(server, notes: list[str], patience: float) -> ServerWork:
    return ServerWork(lambda: Client.connect(server.ready_path), wire.Options(), notes.append, patience)


def _photos(tmp_path: Path, *names: str) -> list[PhotoInput]:
    return [PhotoInput(save_photo(tmp_path / f"{name}.png")) for name in names]


def test_a_server_that_dies_costs_one_photo_and_ends_the_batch(start_server, tmp_path):
    server, notes, outcomes = start_server(workers=1), [], []
    work = _work(server, notes, 1.0)
    ended = work_through(_photos(tmp_path, "a", "kill-server", "b", "c"), work, BatchOptions(tmp_path / "out"))
    with pytest.raises(ServerError, match="has ended"):
        outcomes.extend(ended)
    assert [(outcome.photo.stem, outcome.status) for outcome in outcomes] == [("a", "done"), ("kill-server", "failed")]
    assert isinstance(outcomes[1].error, ConnectionLostError)
    assert os.listdir(tmp_path / "out") == ["a"]
    assert notes == ["the server is gone; looking for it again"]


def test_a_server_that_comes_back_goes_on_with_the_batch(start_server, tmp_path):
    server, notes = start_server(workers=1), []
    started = []

    def start_again() -> None:
        server.process.wait(PATIENCE)
        started.append(start_files_server(tmp_path / "server0", workers=1))

    thread = threading.Thread(target=start_again)
    thread.start()
    try:
        work = _work(server, notes, 20.0)
        outcomes = list(work_through(_photos(tmp_path, "a", "kill-server", "b", "c", "d"), work, BatchOptions(tmp_path / "out")))
    finally:
        thread.join(PATIENCE)
        for again in started:
            again.end()
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "done", "done", "done"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_cancels_at_the_server_and_keeps_what_is_finished(files_server, tmp_path, number):
    photos = [save_photo(tmp_path / f"{name}.png") for name in ("a", "slow1", "slow2", "slow3")]
    child = subprocess.Popen(
        [sys.executable, "-m", "focus_backend", "reconstruct", *photos, "-o", tmp_path / "out", "--server", files_server.ready_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Under a shell's background job the signal would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert "a.png" in child.stdout.readline()
    with Client(files_server.credentials) as client:
        _until(lambda: client.status().running == 2)
        child.send_signal(number)
        out, err = child.communicate(timeout=PATIENCE)
        assert child.returncode == 130
        assert os.listdir(tmp_path / "out") == ["a"]
        assert "interrupted" in err
        assert "Traceback" not in err
        assert "3 not tried" in out
        _until(lambda: client.status().running + client.status().queued == 0)


def _until(is_so) -> None:
    latest = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < latest
        time.sleep(0.02)


def test_photo_beyond_the_server_s_limit_is_told(start_server, tmp_path, capsys):
    server = start_server(workers=1, limits={"frame_bytes": 20_000, "pixels": 10_000})
    photos = [str(save_photo(tmp_path / "heavy.png", size=(300, 300)))]
    Image.new("RGB", (70, 70)).save(tmp_path / "b.png")
    code = reconstruct_photos(ReconstructOptions([*photos, str(tmp_path / "b.png")], tmp_path / "out", server=str(server.ready_path)))
    assert code == 2
    assert os.listdir(tmp_path / "out") == ["b"]
    assert re.search(r"error: .*heavy\.png.* more than the", capsys.readouterr().err)


def test_progress_shows_on_a_terminal(files_server, tmp_path):
    arguments = ["reconstruct", *(save_photo(tmp_path / f"nap{index}.png") for index in range(3)), "-o", tmp_path / "out"]
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "focus_backend", *arguments, "--server", files_server.ready_path],
        stdout=subprocess.PIPE,
        stderr=slave,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(slave)
    seen = b""
    # Linux ends a terminal that nobody holds with an error.
    with contextlib.suppress(OSError):
        while block := os.read(master, 4096):
            seen += block
    out, _ = child.communicate(timeout=PATIENCE)
    os.close(master)
    assert child.returncode == 0
    assert b"nap0.png: fit" in seen
    assert b"\x1b" not in out
