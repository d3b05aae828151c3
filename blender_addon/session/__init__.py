# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a photo's path to a plan of the scene: jobs, the backend they need, and what the user is told. No Blender in here."""
