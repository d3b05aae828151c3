"""Work in a process of its own, so that a crash there costs one photo and no more."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from .arguments import Arguments
from .outcome import Failure, PhotoFailedError, failure_of

Work = Callable[..., Any]
_SECONDS_TO_END = 2.0


class BatchStoppedError(Exception):
    """Going on with other photos would be in vain.

    Attributes:
        failure: why.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.line)
        self.failure = failure


class WorkerProcess:
    """A process that is started with the first call, and again after it has died; one thread calls it.

    Args:
        prepare: called there once, gives what does the work; has to be a module's function.
        arguments: for `prepare`.
        what: it does, for the message when it dies.
    """

    def __init__(self, prepare: Callable[[Arguments], Work], arguments: Arguments, what: str) -> None:
        self._prepare, self._arguments, self._what = prepare, arguments, what
        self._lock = threading.Lock()
        self._process: Any = None
        self._connection: Connection | None = None
        self._is_stopped = False

    def call(self, *request: Any) -> Any:
        """What the work gives for the request.

        Raises:
            PhotoFailedError: the work failed, or its process died.
            BatchStoppedError: it could not even be prepared.
        """
        connection = self._started()
        try:
            connection.send(request)
            kind, answer = connection.recv()
        except (EOFError, OSError):
            raise PhotoFailedError(self._lost()) from None
        if kind == "unprepared":
            raise BatchStoppedError(answer)
        if kind == "failed":
            raise PhotoFailedError(answer)
        return answer

    def stop(self) -> None:
        """Ends the process at once, whatever it does; a call under way fails. Any thread may call it."""
        with self._lock:
            self._is_stopped = True
            self._end(0.0)

    def close(self) -> None:
        """Ends the process when it has nothing to do."""
        with self._lock:
            self._is_stopped = True
            self._end(_SECONDS_TO_END)

    def _started(self) -> Connection:
        with self._lock:
            if self._is_stopped:
                raise PhotoFailedError(Failure("cancelled", "the batch was stopped"))
            if self._connection is None:
                # Not forked: threads of ours and of torch would be lost on the way.
                context = multiprocessing.get_context("spawn")
                self._connection, theirs = context.Pipe()
                self._process = context.Process(target=_serve, args=(theirs, self._prepare, self._arguments), daemon=True)
                self._process.start()
                theirs.close()
            return self._connection

    def _lost(self) -> Failure:
        with self._lock:
            if self._is_stopped:
                return Failure("cancelled", "the batch was stopped")
            self._process.join(_SECONDS_TO_END)
            code = self._process.exitcode
            self._end(0.0)
        return Failure(
            "worker-lost", f"the process for {self._what} died (exit code {code})", "there may be too little memory; use fewer --jobs"
        )

    def _end(self, patience: float) -> None:
        connection, process = self._connection, self._process
        self._connection = self._process = None
        if process is None or connection is None:
            return
        if patience:
            with contextlib.suppress(OSError):
                connection.send(None)
            process.join(patience)
        process.kill()
        process.join()
        connection.close()


def _serve(connection: Connection, prepare: Callable[[Arguments], Work], arguments: Arguments) -> None:
    # Ctrl-C reaches the whole group; who started us decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work: Work | None = None
    failure = None
    try:
        work = prepare(arguments)
    except Exception as error:
        failure = failure_of(error, traceback.format_exc())
    with contextlib.suppress(EOFError, OSError):
        while (request := connection.recv()) is not None:
            if work is None:
                connection.send(("unprepared", failure))
                continue
            try:
                answer = ("done", work(*request))
            except Exception as error:
                answer = ("failed", failure_of(error, traceback.format_exc()))
            connection.send(answer)
