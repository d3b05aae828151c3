"""The add-on in the repository has no wire format of its own: the build copies the backend's in, tests lend it."""

from __future__ import annotations

import sys

from focus_backend.serving import wire

sys.modules.setdefault("blender_addon.wire", wire)
# These want a Blender; `test_in_blenders.py` runs them in every version there is.
collect_ignore = ["in_blender"]
