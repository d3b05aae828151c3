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


class ServerError(FocusError):
    """A server cannot be started, reached or used."""

    code = "server"


class ConnectionLostError(ServerError):
    """The server does not answer, or went away while a request was under way."""

    code = "connection"


class RefusedError(ServerError):
    """The server does not let this client in: wrong secret, unknown or revoked key, or the request is its owner's only."""

    code = "refused"


class BusyError(ServerError):
    """The server holds as many requests as it admits."""

    code = "busy"


class CancelledError(ServerError):
    """The request was cancelled."""

    code = "cancelled"


class DeadlineError(ServerError):
    """The request took longer than it was given."""

    code = "deadline"


class ClosingError(ServerError):
    """The server is about to end and takes no new work."""

    code = "closing"


class WorkerLostError(ServerError):
    """The process that worked on the request died, twice."""

    code = "worker-lost"
    exit_code = 1


class ProtocolError(ServerError):
    """A message is not of the protocol, of another version, or beyond the published limits."""

    code = "protocol"


class InternalError(ServerError):
    """The server failed by its own fault."""

    code = "internal"
    exit_code = 1
