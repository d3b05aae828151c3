"""Result folders: whole or not there, never over anything else."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from focus_backend.errors import OutputError
from focus_backend.export.folder import TakenError, check_writable, write_folder

FILES = {"neutral.obj": b"v 0 0 0\n", "result.json": b"{}"}


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_writes_all_files_and_nothing_else(tmp_path):
    write_folder(FILES, tmp_path / "new" / "me")
    assert _content(tmp_path / "new" / "me") == FILES
    assert os.listdir(tmp_path / "new") == ["me"]


def test_folder_is_as_open_as_any_other(tmp_path):
    write_folder(FILES, tmp_path / "me")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "me").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_replaces_an_older_result_whole(tmp_path):
    write_folder(FILES | {"report.jpg": b"old"}, tmp_path / "me")
    write_folder(FILES | {"result.json": b'{"new": 1}'}, tmp_path / "me")
    assert _content(tmp_path / "me") == FILES | {"result.json": b'{"new": 1}'}
    assert os.listdir(tmp_path) == ["me"]


def test_never_replaces_what_is_not_a_result(tmp_path):
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "me.jpg").write_bytes(b"the user's own photo")
    with pytest.raises(TakenError, match=r"other files, such as me\.jpg"):
        write_folder(FILES, tmp_path / "me")
    assert _content(tmp_path / "me") == {"me.jpg": b"the user's own photo"}
    assert os.listdir(tmp_path) == ["me"]


def test_a_file_or_a_link_in_the_way_stays(tmp_path):
    (tmp_path / "me").write_bytes(b"a file")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("me", "link"):
        with pytest.raises(TakenError, match="not a folder"):
            write_folder(FILES, tmp_path / name)
    assert (tmp_path / "me").read_bytes() == b"a file"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_output_under_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="a file is in the way"):
        write_folder(FILES, tmp_path / "file" / "me")
    with pytest.raises(OutputError, match="a file is in the way"):
        check_writable(tmp_path / "file" / "out")
    with pytest.raises(OutputError, match="a file is in the way"):
        check_writable(tmp_path / "file")


def test_read_only_disk():
    with pytest.raises(OutputError) as caught:
        check_writable(Path("/proc/focus-out"))
    assert caught.value.exit_code == 2
    assert "/proc/focus-out" in caught.value.problem


def test_folder_without_rights(tmp_path):
    """In a child, which gives up root's rights first where it has them."""
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    code = (
        "import os, sys; from pathlib import Path; from focus_backend.export.folder import check_writable\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: check_writable(Path(sys.argv[1]))\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", code, out], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("OutputError"), done.stderr
    assert "may not be written" in done.stdout


_FILL = """
import resource, sys
from pathlib import Path
from focus_backend.export.folder import write_folder
limit, out = int(sys.argv[1]), Path(sys.argv[2])
if limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try: write_folder({"neutral.obj": b"small", "face.glb": b"x" * 3_000_000, "result.json": b"{}"}, out / "me")
except Exception as e: print(type(e).__name__, e)
else: print("written")
"""


def _fill(limit: int, out: Path) -> str:
    done = subprocess.run([sys.executable, "-c", _FILL, str(limit), out], capture_output=True, text=True, timeout=60)
    return done.stdout or done.stderr


def test_file_size_limit_leaves_nothing(tmp_path):
    assert resource.RLIMIT_FSIZE is not None
    answer = _fill(1_000_000, tmp_path)
    assert answer.startswith("OutputError no space left to write"), answer
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing_and_keeps_the_older_result(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a small disk; the size limit above stands in")
    try:
        write_folder(FILES, disk / "me")
        answer = _fill(0, disk)
        assert answer.startswith("OutputError no space left to write"), answer
        assert os.listdir(disk) == ["me"]
        assert _content(disk / "me") == FILES
    finally:
        subprocess.run(["umount", disk], check=True)


def test_interrupted_writing_leaves_nothing(tmp_path):
    class Interrupting(dict):
        def items(self):
            yield "neutral.obj", b"v 0 0 0\n"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(Interrupting(), tmp_path / "me")
    assert list(tmp_path.iterdir()) == []
