# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user of Blender can do about an error, where the backend's own advice is for its command line."""

from __future__ import annotations

from ..errors import AddonError

_REMEDIES = {
    "no-face": "crop the photo around the face, or take another that shows it larger and clearer",
}


def remedy_of(error: AddonError) -> str:
    """One line; "" where there is nothing to be done."""
    return _REMEDIES.get(error.code, error.remedy)


def in_one_line(error: AddonError) -> str:
    """Problem and remedy."""
    remedy = remedy_of(error)
    return f"{error.problem}: {remedy}" if remedy else error.problem
