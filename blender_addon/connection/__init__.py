# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reaches a backend: its address and keys, the encrypted connection, and a backend process of our own. Knows no Blender."""
