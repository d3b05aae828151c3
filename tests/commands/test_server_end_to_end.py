"""The command's whole way with the real pipeline: `serve`, `reconstruct --server`, `status`, `stop`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands.conftest import PATIENCE, command, content_of

_ASTRONAUT = Path(__file__).parents[2] / "docs" / "demo" / "astronaut.jpg"


@pytest.mark.slow
def test_the_server_s_files_are_those_of_a_local_run(tmp_path):
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "FOCUS_KEYS": str(tmp_path / "keys")}
    server = subprocess.Popen(
        [sys.executable, "-m", "focus_backend", "serve", "--workers", "1", "--parent-pid", str(os.getpid())],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        ready_file = Path(server.stdout.readline().strip())
        assert ready_file.parent == tmp_path / "focus-backend"
        local = command("reconstruct", _ASTRONAUT, "-o", tmp_path / "local")
        remote = command("reconstruct", _ASTRONAUT, "-o", tmp_path / "remote", "--server", "auto", env=environment)
        assert (remote.returncode, remote.stderr) == (local.returncode, local.stderr) == (0, "")
        assert _without_timings(content_of(tmp_path / "remote")) == _without_timings(content_of(tmp_path / "local"))
        report = json.loads(command("status", "--json", env=environment).stdout)
        assert report["status"]["answered"] == 1
        assert report["server"]["workers_ready"] == 1
        stopped = command("stop", "--grace", "0", env=environment)
        assert stopped.stdout == "stopped\n"
        assert server.wait(PATIENCE) == 0
        assert not ready_file.exists()
    finally:
        server.kill()
        server.communicate()


def _without_timings(files: dict[str, bytes]) -> dict[str, object]:
    documents = {name: json.loads(content) for name, content in files.items() if name.endswith("result.json")}
    for document in documents.values():
        assert document.pop("timings")
    return {**files, **documents}
