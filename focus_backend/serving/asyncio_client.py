"""A client of a FOCUS server for asyncio programs, on any event loop."""

from __future__ import annotations

import asyncio
import inspect
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from focus_backend.serving import wire
from focus_backend.serving.client import (
    DEFAULT_OPTIONS,
    DEFAULT_PARTS,
    Photo,
    ProgressCallback,
    ReconstructionResult,
    client_software,
    photo_arrays,
    request_body,
    result_of,
)
from focus_backend.serving.connection import Call, Connection
from focus_backend.serving.credentials import Credentials, find_credentials


class AsyncPendingResult:
    """A reconstruction under way; belongs to the event loop that sent it."""

    def __init__(self, client: object, connection: Connection, waiter: _Waiter, progress: ProgressCallback | None) -> None:
        # A client that nobody else holds must live as long as its requests.
        self._client = client
        self._connection = connection
        self._waiter = waiter
        self._progress = progress

    @property
    def id(self) -> str:
        """What the server calls the request."""
        return self._waiter.call.id

    def done(self) -> bool:
        """Whether `result` would return or raise at once."""
        return self._waiter.call.is_done

    def cancel(self) -> bool:
        """Gives the request up, here and at the server: `result` raises `CancelledError`. False when it had ended already."""
        return self._connection.cancel(self._waiter.call)

    async def result(self, timeout: float | None = None) -> ReconstructionResult:
        """Waits for the end. `progress` is called, and awaited if it is a coroutine, in the task that waits here.

        Args:
            timeout: seconds; the request goes on when they have passed, and when the waiting task is cancelled except within `progress`.

        Raises:
            TimeoutError: it has not ended yet.
            FocusError: it ended with this; also when the server cancelled it (`focus_backend.errors.CancelledError`).
        """
        end = None if timeout is None else time.monotonic() + timeout
        call = self._waiter.call
        while True:
            is_done = call.is_done
            await self._show_updates()
            if is_done:
                return result_of(call)
            try:
                await asyncio.wait_for(self._waiter.wait(), None if end is None else max(0.0, end - time.monotonic()))
            except asyncio.TimeoutError:
                raise TimeoutError(f"the reconstruction has not ended within {timeout:g} s") from None

    async def _show_updates(self) -> None:
        for update in self._waiter.call.take_updates():
            if self._progress is None or self._waiter.call.is_cancelled:
                continue
            try:
                shown = self._progress(update.stage, update.fraction, update.preview)
                if inspect.isawaitable(shown):
                    await shown
            except BaseException:
                self.cancel()
                raise


class AsyncClient:
    """A client of one server, for any number of tasks of one event loop.

    Everything as for `client.Client`, fork included. The socket belongs to a thread, so that a busy event loop does not look like
    a dead client, and loops without socket support for ZeroMQ (Windows) work.

    Args:
        credentials: from `credentials.find_credentials`.
        timeout: seconds without any sign of the server before it counts as lost; None for what suits the address.
        find: asked for credentials when it connects anew; None to use the same again.
    """

    def __init__(self, credentials: Credentials, *, timeout: float | None = None, find: Callable[[], Credentials] | None = None) -> None:
        self._connection = Connection(credentials, timeout, find)
        self._close = weakref.finalize(self, self._connection.close)

    @classmethod
    async def connect(cls, server: str | Path = "auto", key: Path | None = None, *, timeout: float | None = None) -> AsyncClient:
        """A client that has greeted its server; arguments and errors as for `Client.connect`."""
        credentials = await asyncio.to_thread(find_credentials, server, key)
        client = cls(credentials, timeout=timeout, find=lambda: find_credentials(server, key))
        try:
            await client.hello()
        except BaseException:
            await client.close()
            raise
        return client

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancels what is under way and ends the connection; may be called twice."""
        await asyncio.to_thread(self._close)

    async def hello(self) -> wire.Welcome:
        """Who the server is and what it admits."""
        return (await self._ask(wire.Hello(client_software()))).body

    async def status(self, prometheus: bool = False) -> wire.StatusReport:
        """How the server is; with Prometheus text where asked for."""
        return (await self._ask(wire.Status(prometheus))).body

    async def ping(self) -> float:
        """Seconds until the server has answered."""
        start = time.monotonic()
        await self._ask(wire.Ping())
        return time.monotonic() - start

    async def shutdown(self, grace: float | None = None) -> None:
        """Asks the server to end; its owner only. Running work may go on for `grace` seconds, None for the server's own."""
        await self._ask(wire.Shutdown(grace))

    async def submit(
        self,
        photo: Photo,
        *,
        name: str | None = None,
        options: wire.Options = DEFAULT_OPTIONS,
        parts: Sequence[str] = DEFAULT_PARTS,
        deadline: float | None = None,
        progress: ProgressCallback | None = None,
        preview_side: int = 0,
        retries: int = 0,
    ) -> AsyncPendingResult:
        """Sends a photo and does not wait for its faces; arguments and errors as for `Client.submit`."""
        # Reading a file and copying pixels would hold up the loop.
        arrays = await asyncio.to_thread(photo_arrays, photo, self._connection.limits)
        body = request_body(photo, name, options, parts, deadline, progress is not None, preview_side)
        waiter = _Waiter(body, arrays, retries)
        self._connection.start(waiter.call)
        return AsyncPendingResult(self, self._connection, waiter, progress)

    async def reconstruct(
        self,
        photo: Photo,
        *,
        name: str | None = None,
        options: wire.Options = DEFAULT_OPTIONS,
        parts: Sequence[str] = DEFAULT_PARTS,
        deadline: float | None = None,
        progress: ProgressCallback | None = None,
        preview_side: int = 0,
        retries: int = 0,
    ) -> ReconstructionResult:
        """Sends a photo and waits for its faces; arguments and errors as for `Client.submit`.

        Cancelling the task, and whatever `progress` raises, cancels the request at the server.
        """
        pending = await self.submit(
            photo,
            name=name,
            options=options,
            parts=parts,
            deadline=deadline,
            progress=progress,
            preview_side=preview_side,
            retries=retries,
        )
        try:
            return await pending.result()
        except BaseException:
            pending.cancel()
            raise

    async def _ask(self, body: Any) -> wire.Message:
        waiter = _Waiter(body)
        self._connection.start(waiter.call)
        try:
            while not waiter.call.is_done:
                await waiter.wait()
        except BaseException:
            self._connection.cancel(waiter.call)
            raise
        return waiter.call.answer()


class _Waiter:
    """A call with an event of the running loop that is set after each change of it."""

    def __init__(self, body: Any, arrays: Mapping[str, wire.Array] | None = None, retries: int = 0) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.call = Call(body, arrays, retries, notify=self._notify)

    async def wait(self) -> None:
        """Until the call has changed since the last wait, or has ended."""
        if not self.call.is_done:
            await self._changed.wait()
        self._changed.clear()

    def _notify(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._changed.set)
        except RuntimeError:
            # The loop was closed: nobody waits any more.
            return
