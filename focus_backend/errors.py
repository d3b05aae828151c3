"""Every failure a user can cause or meet, as one tree: what was wrong, with which input, what to do."""

from __future__ import annotations


class FocusError(Exception):
    """Root of all errors this package raises on purpose.

    Args:
        problem: what was wrong and with which input, one line, no full stop.
        remedy: what the user can do about it, one line, no full stop.
    """

    code = "error"
    exit_code = 2

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}: {remedy}" if remedy else problem)


class PhotoError(FocusError):
    """The photo cannot be used: missing, not an image, damaged, too large, too small."""

    code = "photo"


class NoFaceError(FocusError):
    """No face was found, and no landmarks were given."""

    code = "no-face"


class LandmarkError(FocusError):
    """Landmarks given by the user cannot be used, or a detector is not available."""

    code = "landmarks"


class ModelError(FocusError):
    """A face model file is missing, damaged, tampered with or of another version."""

    code = "model"


class WeightsError(FocusError):
    """Weights of a network are missing, damaged, of another network, face model or version."""

    code = "weights"


class TrainingError(FocusError):
    """Training cannot go on: losses are not finite, or a stage before is missing."""

    code = "training"


class CameraError(FocusError):
    """Points cannot be projected: they lie behind the camera or are not finite."""

    code = "camera"


class FitError(FocusError):
    """The fit found no usable answer for this face."""

    code = "fit"


class OutputError(FocusError):
    """Results cannot be written: folder not writable, disk full."""

    code = "output"


class ConfigError(FocusError):
    """A flag or a configuration file holds a value that cannot be used."""

    code = "config"


class MissingDependencyError(FocusError):
    """An optional package or its weights are absent."""

    code = "missing-dependency"
