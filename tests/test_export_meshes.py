"""scripts/export_meshes.py: its command line, what it resumes, what it reports, and the real thing once."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pygltflib import GLTF2

from focus_backend.export.names import face_names
from focus_backend.photo_paths import photo_hash
from scripts.mesh_export.arguments import Arguments, read_arguments
from scripts.mesh_export.manifest import is_done, manifest_path, read_manifest, write_manifest
from scripts.mesh_export.outcome import FaceFiles, Failure, PhotoFailedError, PhotoOutcome, failure_of
from scripts.mesh_export.photos import find_photos
from scripts.mesh_export.report import Report
from scripts.mesh_export.worker_process import BatchStoppedError, WorkerProcess

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "export_meshes.py"
ASTRONAUT = ROOT / "docs" / "demo" / "astronaut.jpg"
_NO_BPY = importlib.util.find_spec("bpy") is None
_PATIENCE = 300


def test_what_runs_in_blender_needs_none_of_the_backend_s_packages() -> None:
    modules = "export_meshes, mesh_export.inside_blender, mesh_export.scene"
    code = f"import sys; import {modules}; print([m for m in ('PIL', 'torch', 'numpy', 'jaxtyping', 'zmq') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_defaults_are_those_of_reconstruct() -> None:
    found = read_arguments(["a.jpg", "--out", "meshes"])
    assert found == Arguments(("a.jpg",), Path("meshes"))
    assert (found.formats, found.faces, found.method, found.misfit, found.jobs) == (("glb",), None, "auto", True, 1)


def test_options_are_read() -> None:
    given = ["a", "b", "-o", "x", "--format", "obj,GLB,obj", "--faces", "2", "--no-misfit", "--no-expression", "--server", "auto"]
    found = read_arguments(given)
    assert (found.formats, found.faces, found.misfit, found.expression, found.server) == (("obj", "glb"), 2, False, False, "auto")
    assert found.jobs > 1


@pytest.mark.parametrize(
    "wrong",
    [
        ["--format", "stl"],
        ["--format", ","],
        ["--faces", "0"],
        ["--texture-size", "8"],
        ["--unit-scale", "nan"],
        ["--jobs", "0"],
        ["--key", "k.json"],
        ["--server", "auto", "--model", "anny"],
    ],
)
def test_wrong_options_end_with_code_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read_arguments(["a.jpg", "--out", "meshes", *wrong])
    assert caught.value.code == 2


def test_folders_and_patterns_stand_for_their_photos_each_once(tmp_path: Path) -> None:
    for name in ("b.jpg", "a [1].PNG", ".hidden.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.webp").write_bytes(b"")
    given = [str(tmp_path), str(tmp_path / "*.jpg"), str(tmp_path / "a [1].PNG")]
    assert [photo.path.name for photo in find_photos(given, False, tmp_path / "out")] == ["a [1].PNG", "b.jpg"]
    assert [photo.path.name for photo in find_photos([str(tmp_path)], True, tmp_path / "out")] == ["a [1].PNG", "b.jpg", "c.webp"]


def test_arguments_that_stand_for_nothing_are_failures(tmp_path: Path) -> None:
    found = find_photos([str(tmp_path), str(tmp_path / "*.jpg"), str(tmp_path / "gone.jpg")], False, tmp_path / "out")
    assert [photo.failure is None for photo in found] == [False, False, True]


def test_textures_of_an_earlier_run_are_no_photos(tmp_path: Path) -> None:
    for name in ("me.jpg", "me_texture.png"):
        (tmp_path / name).write_bytes(b"")
    assert [photo.path.name for photo in find_photos([str(tmp_path)], False, tmp_path)] == ["me.jpg"]


def test_no_two_photos_share_names(tmp_path: Path) -> None:
    for folder, name in (("one", "me.jpg"), ("two", "ME.jpg"), ("two", "me.png"), ("two", "me-2.jpg")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(b"")
    photos = find_photos([str(tmp_path)], True, tmp_path / "out")
    names = [photo.name.casefold() for photo in photos]
    assert len(set(names)) == 4
    assert face_names("me", 3, frozenset(names)) == ["me", "me-3", "me-4"]


def _done(out: Path, photo: Path, arguments: Arguments) -> None:
    (out / "me.glb").write_bytes(b"mesh")
    write_manifest(out, "me", photo, photo_hash(photo), arguments, [FaceFiles("me", {"glb": ["me.glb"]})])


def test_only_what_is_there_with_the_same_photo_and_options_is_skipped(tmp_path: Path) -> None:
    photo = tmp_path / "me.jpg"
    photo.write_bytes(b"photo")
    arguments, sha256 = Arguments((str(photo),), tmp_path), photo_hash(photo)
    assert not is_done(tmp_path, "me", sha256, arguments)
    _done(tmp_path, photo, arguments)
    assert is_done(tmp_path, "me", sha256, arguments)
    assert not is_done(tmp_path, "me", "0" * 64, arguments)
    assert not is_done(tmp_path, "me", None, arguments)
    assert not is_done(tmp_path, "me", sha256, dataclasses.replace(arguments, method="fit"))
    assert not is_done(tmp_path, "me", sha256, dataclasses.replace(arguments, formats=("glb", "obj")))
    (tmp_path / "me.glb").unlink()
    assert not is_done(tmp_path, "me", sha256, arguments)


def test_a_format_that_is_added_keeps_the_others_listed(tmp_path: Path) -> None:
    photo = tmp_path / "me.jpg"
    photo.write_bytes(b"photo")
    arguments = Arguments((str(photo),), tmp_path)
    _done(tmp_path, photo, arguments)
    write_manifest(tmp_path, "me", photo, photo_hash(photo), arguments, [FaceFiles("me", {"obj": ["me.obj"]})])
    assert read_manifest(tmp_path, "me")["faces"][0]["files"] == {"glb": ["me.glb"], "obj": ["me.obj"]}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"kind": "else"}', b"\xff"])
def test_a_manifest_of_somebody_else_is_none(content: bytes, tmp_path: Path) -> None:
    manifest_path(tmp_path, "me").write_bytes(content)
    assert read_manifest(tmp_path, "me") == {}


@pytest.mark.parametrize(
    ("codes", "expected"), [([], 0), (["photo"], 2), (["photo", "internal"], 1), (["worker-lost"], 1), (["no-face", "exists"], 2)]
)
def test_exit_codes(codes: list[str], expected: int, tmp_path: Path) -> None:
    report = Report(5, tmp_path)
    for code in codes:
        report.add(PhotoOutcome(Path("me.jpg"), "failed", failure=Failure(code, "wrong")))
    assert report.exit_code == expected
    report.interrupted = True
    assert report.exit_code == 130


def test_the_report_tells_every_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(3, tmp_path)
    report.add(PhotoOutcome(Path("good.jpg"), "done", (FaceFiles("good", {"glb": ["good.glb"]}, ("dark",)),), 1.5))
    report.add(PhotoOutcome(Path("evil\n.jpg"), "failed", failure=Failure("photo", "no photo", "give one")))
    report.finish(2.0)
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["summary"] == {"photos": 3, "done": 1, "skipped": 0, "failed": 1, "not_tried": 1, "seconds": 2.0, "exit_code": 2}
    assert told["photos"][1]["error"] == {"code": "photo", "problem": "no photo", "remedy": "give one"}
    shown = capsys.readouterr()
    assert "good.jpg: good.glb (1.5 s)" in shown.out
    assert "note: dark" in shown.err
    assert "evil?.jpg  photo" in shown.err


def test_errors_of_the_user_and_ours_are_told_apart() -> None:
    assert failure_of(ValueError("odd")).exit_code == 1
    assert failure_of(PhotoFailedError(Failure("photo", "gone"))).exit_code == 2


def prepare_for_test(arguments: Arguments) -> Callable[[str], str]:
    """Work in another process: gives the words back, fails, or dies."""
    if arguments.method == "network":
        raise OSError("no weights")

    def work(word: str) -> str:
        if word == "die":
            os._exit(9)
        if word == "fail":
            raise ValueError(word)
        return f"{word} {os.getpid()}"

    return work


@pytest.fixture
def worker() -> Any:
    found = WorkerProcess(prepare_for_test, Arguments((), Path()), "testing")
    yield found
    found.stop()


def test_a_worker_that_dies_costs_one_photo(worker: WorkerProcess) -> None:
    first = worker.call("hello")
    with pytest.raises(PhotoFailedError, match="testing died"):
        worker.call("die")
    second = worker.call("hello")
    assert first.split()[0] == second.split()[0] == "hello"
    assert first != second


def test_work_that_fails_costs_one_photo_and_no_process(worker: WorkerProcess) -> None:
    first = worker.call("hello")
    with pytest.raises(PhotoFailedError, match="ValueError: fail"):
        worker.call("fail")
    assert worker.call("hello") == first


def test_work_that_cannot_be_prepared_stops_the_batch() -> None:
    worker = WorkerProcess(prepare_for_test, Arguments((), Path(), method="network"), "testing")
    try:
        with pytest.raises(BatchStoppedError, match="no weights"):
            worker.call("hello")
    finally:
        worker.stop()


def test_a_stopped_worker_is_not_started_again(worker: WorkerProcess) -> None:
    worker.stop()
    with pytest.raises(PhotoFailedError, match="stopped"):
        worker.call("hello")


def _command(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(_command(*arguments), capture_output=True, text=True, timeout=_PATIENCE, env=environment)


def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = _run(ASTRONAUT, "--out", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


@pytest.mark.skipif(_NO_BPY, reason="the bpy package is not installed")
def test_a_server_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    done = _run(ASTRONAUT, "--out", tmp_path / "out", "--server", tmp_path / "gone.json")
    assert done.returncode == 2
    assert "gone.json" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.json"]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path, Path]:
    """A run with a good and a bad photo: how it went, photos, files."""
    if _NO_BPY:
        pytest.skip("the bpy package is not installed")
    folder = tmp_path_factory.mktemp("batch")
    photos, out = folder / "my phötos", folder / "meshes"
    photos.mkdir()
    shutil.copy(ASTRONAUT, photos / "Astronaut 1.jpg")
    (photos / "bad.jpg").write_bytes(b"no photo")
    options = ("--format", "glb,obj,blend", "--method", "fit", "--texture-size", "256")
    return _run(photos, "--out", out, *options), photos, out


@pytest.mark.slow
def test_a_bad_photo_does_not_stop_the_batch(batch: tuple[subprocess.CompletedProcess[str], Path, Path]) -> None:
    done, _, out = batch
    assert done.returncode == 2, done.stderr
    names = {path.name for path in out.iterdir()}
    meshes = {"Astronaut 1.glb", "Astronaut 1.obj", "Astronaut 1.mtl", "Astronaut 1_texture.png", "Astronaut 1.blend"}
    assert names == {*meshes, "Astronaut 1.focus.json", "report.json"}
    told = json.loads((out / "report.json").read_text())
    assert {Path(photo["photo"]).name: photo["status"] for photo in told["photos"]} == {"Astronaut 1.jpg": "done", "bad.jpg": "failed"}


@pytest.mark.slow
def test_the_glb_has_the_head_in_metres_its_52_expressions_and_its_texture(
    batch: tuple[subprocess.CompletedProcess[str], Path, Path],
) -> None:
    found = GLTF2().load(str(batch[2] / "Astronaut 1.glb"))
    assert found is not None
    (mesh,) = found.meshes
    targets = mesh.extras["targetNames"]
    assert "jawOpen" in targets
    assert len([name for name in targets if not name.startswith(("Identity ", "Fitted "))]) == 52
    assert mesh.weights[targets.index("Fitted expression")] == 1.0
    position = found.accessors[mesh.primitives[0].attributes.POSITION]
    size = np.subtract(position.max, position.min)
    # A head is higher than deep, deeper than wide, and a quarter of a metre high: y is up.
    assert 0.2 < size[1] < 0.35
    assert 0.12 < size[0] < size[2] < 0.3
    (image,) = found.images
    view = found.bufferViews[image.bufferView]
    data = found.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    assert Image.open(io.BytesIO(data)).size == (256, 256)


@pytest.mark.slow
def test_what_is_there_is_skipped(batch: tuple[subprocess.CompletedProcess[str], Path, Path]) -> None:
    _, photos, out = batch
    before = (out / "Astronaut 1.glb").stat().st_mtime_ns
    again = _run(
        photos / "Astronaut 1.jpg", "--out", out, "--format", "glb,obj", "--method", "fit", "--texture-size", "256", "--skip-existing"
    )
    assert again.returncode == 0, again.stderr
    assert "skipped" in again.stdout
    assert (out / "Astronaut 1.glb").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.skipif(_NO_BPY, reason="the bpy package is not installed")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no polite kill")
def test_ctrl_c_ends_the_batch_and_leaves_no_halves_and_no_processes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        _command(ASTRONAUT, "--out", out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + _PATIENCE
    while not out.is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 130, told
    assert "interrupted" in told
    assert [path.name for path in out.iterdir()] == ["report.json"]
    # multiprocessing's own watcher ends a moment after us.
    while _living(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _living(process.pid)


def _living(group: int) -> list[str]:
    """Processes of the group that are more than an entry in a table; [] where the system does not tell."""
    told = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = entry.read_text(errors="replace").rpartition(")")
            state, _, process_group = rest.split()[:3]
            told += [name] if int(process_group) == group and state != "Z" else []
    return told
