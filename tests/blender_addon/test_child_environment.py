"""What a backend is started with of what Blender was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blender_addon.connection.child_environment import child_environment


@pytest.mark.skipif(os.name != "posix", reason="the paths are POSIX")
def test_libraries_of_the_own_program_are_left_out():
    given = {
        "PATH": "/blender/bin",
        "LD_LIBRARY_PATH": os.pathsep.join(["/blender/lib", "/blender/../blender/lib/mesa", "", "/opt/cuda", "/blender-other"]),
        "LD_PRELOAD": "/blender/lib/libfoo.so",
        "PythonHome": "/blender/python",
        "__PYVENV_LAUNCHER__": "/blender/python",
        "HTTPS_PROXY": "x",
    }
    kept = child_environment(given, [Path("/blender")])
    assert kept == {
        "PATH": "/blender/bin",
        "LD_LIBRARY_PATH": os.pathsep.join(["/opt/cuda", "/blender-other"]),
        "HTTPS_PROXY": "x",
        "PYTHONIOENCODING": "utf-8:backslashreplace",
    }
