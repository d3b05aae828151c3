# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong, in words for the user."""

from __future__ import annotations


class AddonError(Exception):
    """Something the user should know.

    Attributes:
        problem: what was wrong, and with which input; one line.
        remedy: what to do about it; one line.
        code: for programs: that of the server's answer, or one of ours.
    """

    def __init__(self, problem: str, remedy: str = "", code: str = "error") -> None:
        # Paths may hold half a surrogate or a line break, and Blender's labels take neither.
        problem, remedy = _shown(problem), _shown(remedy)
        super().__init__(f"{problem}: {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy
        self.code = code


def _shown(text: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in text)
