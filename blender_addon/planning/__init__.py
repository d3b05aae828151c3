# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a server's answer to what is to land in the scene: arrays in, `PhotoPlan` out; knows neither Blender nor sockets."""
