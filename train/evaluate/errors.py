"""Failures of an evaluation as a whole; a photo that cannot be judged is no error, it is counted and named."""

from __future__ import annotations

from focus_backend.errors import FocusError


class EvaluationError(FocusError):
    """The ground truth or the results cannot be evaluated: wrong layout, nothing in it, a scan that cannot be read."""

    code = "evaluation"

    def __reduce__(self) -> tuple[type[EvaluationError], tuple[str, str]]:
        # The default would hand the joined line to the constructor as the problem when a worker process sends the error home.
        return type(self), (self.problem, self.remedy)
