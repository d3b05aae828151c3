# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""For type checkers only: the build copies the wire format in as wire.py, and packs no .pyi file."""

from focus_backend.serving.wire import *  # noqa: F403
