# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Heads in Blender's scene: built from plans, found again, updated, removed. Knows neither backend nor panel.

Nothing here keeps a reference to a data-block between two calls: undo would pull it away. Everything is found again by marks.
"""
