"""The thread that owns a client's socket; `client.Client` and `asyncio_client.AsyncClient` talk through it."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from focus_backend.errors import CancelledError, ConnectionLostError, FocusError, InternalError, ServerError
from focus_backend.serving import wire
from focus_backend.serving.addresses import is_loopback
from focus_backend.serving.credentials import Credentials
from focus_backend.serving.link import Link
from focus_backend.serving.session import Finished, Session, Update, new_id, renewed

# A server that is being restarted is looked for so often.
_LOOK_AGAIN_SECONDS = 0.25
# Cancels still leave when the client is closed; a dead network must not hold it for longer.
_LINGER_MILLISECONDS = 2000
# A server on this machine answers at once; elsewhere a large answer on a slow line holds back every sign behind it.
_LOOPBACK_SECONDS, _REMOTE_SECONDS = 10.0, 60.0
# Stages a user has not looked at; more than any request has.
_MOST_UPDATES = 64
# Windows lets no Ctrl-C interrupt a wait for a lock.
_WAIT_SECONDS = 0.2 if os.name == "nt" else None


class Call:
    """One request as its caller sees it, from any thread.

    Args:
        body: of the request.
        arrays: of the request.
        retries: how often it is sent again, under the same id, after the connection was lost.
        notify: called in the socket's thread after each change; must not block.
    """

    def __init__(
        self, body: Any, arrays: Mapping[str, wire.Array] | None = None, retries: int = 0, notify: Callable[[], object] | None = None
    ) -> None:
        self.id = new_id()
        self.body = body
        self.arrays = arrays or {}
        self.retries = retries
        self._notify = notify
        self._changed = threading.Condition()
        self._updates: deque[Update] = deque(maxlen=_MOST_UPDATES)
        self._outcome: wire.Message | FocusError | None = None

    @property
    def is_done(self) -> bool:
        """Whether it ended, one way or another."""
        return self._outcome is not None

    @property
    def is_cancelled(self) -> bool:
        """Whether it was given up on this side or at the server."""
        return isinstance(self._outcome, CancelledError)

    def add(self, update: Update) -> None:
        """Notes progress. Of a stage that nobody has looked at yet only the newest is kept."""
        with self._changed:
            if self._updates and self._updates[-1].stage == update.stage:
                earlier = self._updates.pop()
                update = Update(update.id, update.stage, update.fraction, update.preview or earlier.preview)
            self._updates.append(update)
            self._changed.notify_all()
        self._tell()

    def finish(self, outcome: wire.Message | FocusError) -> bool:
        """Ends it, if it has not ended yet; whether this did."""
        with self._changed:
            if self._outcome is not None:
                return False
            self._outcome = outcome
            self.arrays = {}
            if isinstance(outcome, CancelledError):
                self._updates.clear()
            self._changed.notify_all()
        self._tell()
        return True

    def take_updates(self) -> list[Update]:
        """Progress since the last call, oldest first."""
        with self._changed:
            taken = list(self._updates)
            self._updates.clear()
        return taken

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for progress or the end; False when `timeout` seconds passed without."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._updates and self._outcome is None:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(min((s for s in (left, _WAIT_SECONDS) if s is not None), default=None))
        return True

    def answer(self) -> wire.Message:
        """The final answer.

        Raises:
            FocusError: the request ended with it.
        """
        if isinstance(self._outcome, FocusError):
            raise self._outcome
        if self._outcome is None:
            raise InternalError("the request is still under way", "wait for it")
        return self._outcome

    def _tell(self) -> None:
        if self._notify is not None:
            self._notify()


class Connection:
    """A connection to a server that is made when needed, and made anew after it was lost.

    A thread of its own owns the socket and its ZeroMQ context; it starts with the first call.

    Args:
        credentials: for the first connection.
        timeout: seconds without a sign of the server before it counts as lost; None for 10 over loopback and 60 elsewhere.
        find: gives the credentials for later connections; None for the same again.
    """

    def __init__(self, credentials: Credentials, timeout: float | None = None, find: Callable[[], Credentials] | None = None) -> None:
        # As the server last told them.
        self.limits: wire.Limits | None = None
        self._credentials: Credentials | None = credentials
        self._find = find or (lambda: credentials)
        self._timeout = timeout
        self._process = os.getpid()
        # Reentrant, because signal handlers and the garbage collector may cancel or close in the middle of `start`.
        self._lock = threading.RLock()
        self._inbox: deque[tuple[str, Call]] = deque()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._waker: socket.socket | None = None
        # What follows belongs to the thread.
        self._calls: dict[str, Call] = {}
        self._session: Session | None = None
        self._link: Link | None = None
        self._used: Credentials | None = None
        self._found_at = 0.0
        # When a lost server is looked for again, and until when; by the monotonic clock.
        self._look_at: float | None = None
        self._look_until = 0.0

    def start(self, call: Call) -> None:
        """Sends a request; its end comes through the call.

        Raises:
            ServerError: the connection was closed, or belongs to the process this one was forked from.
        """
        self._check_process()
        with self._lock:
            if self._is_closed:
                raise ServerError("this client was closed", "make a new one")
            self._inbox.append(("start", call))
            if self._thread is None:
                self._start_thread()
            self._wake()

    def cancel(self, call: Call) -> bool:
        """Gives a request up and tells the server; False when it had ended already."""
        if not call.finish(CancelledError("the request was cancelled")):
            return False
        if os.getpid() == self._process:
            with self._lock:
                self._inbox.append(("cancel", call))
                self._wake()
        return True

    def close(self) -> None:
        """Cancels what is under way, here and at the server, and ends the thread. May be called twice, from any thread."""
        # A forked child has neither the thread nor a use for the socket.
        if os.getpid() != self._process:
            return
        with self._lock:
            self._is_closed = True
            self._wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise ServerError("this client was made before the process was forked", "make one in each process")

    def _start_thread(self) -> None:
        waker, woken = socket.socketpair()
        waker.setblocking(False)
        woken.setblocking(False)
        self._waker = waker
        self._thread = threading.Thread(target=self._run, args=(woken,), name="focus-client", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            # Threads are used up, or Python is about to end: nobody would ever answer.
            self._thread = self._waker = None
            self._inbox.clear()
            waker.close()
            woken.close()
            raise

    def _wake(self) -> None:
        waker = self._waker
        if waker is not None:
            try:
                waker.send(b"!")
            except OSError:
                # So many wakes wait already that one more changes nothing, or the thread has just ended.
                return

    def _run(self, woken: socket.socket) -> None:
        # One of its own: the global one would outlive the client, and be shared with strangers.
        context = zmq.Context()
        try:
            while not self._is_closed:
                self._wait(woken)
                self._take_inbox()
                self._look_elsewhere()
                if self._session is None and self._calls:
                    self._connect(context)
                self._work()
            self._end_all(CancelledError("the client was closed"))
        except Exception as error:
            with self._lock:
                self._is_closed = True
            self._end_all(InternalError(f"the client failed: {type(error).__name__}: {error}", "make a new one, and report this"))
            raise
        finally:
            self._drop_link(_LINGER_MILLISECONDS)
            context.term()
            waker, self._waker = self._waker, None
            for end in (waker, woken):
                if end is not None:
                    end.close()

    def _wait(self, woken: socket.socket) -> None:
        """Until there is something to do."""
        # Without the lock: a signal handler that closes may hold it and wait for this thread.
        if self._inbox or self._is_closed:
            return
        seconds = self._session.seconds_to_tick() if self._session is not None else None
        if seconds is not None and self._link is not None and not self._link.is_established:
            seconds = min(seconds, _LOOK_AGAIN_SECONDS)
        if self._look_at is not None and self._calls:
            seconds = max(0.0, self._look_at - time.monotonic())
        poller = zmq.Poller()
        poller.register(woken, zmq.POLLIN)
        for end in self._link.to_poll() if self._link is not None else ():
            poller.register(end, zmq.POLLIN)
        poller.poll(None if seconds is None else math.ceil(1000 * seconds))
        try:
            while woken.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _take_inbox(self) -> None:
        while self._inbox:
            verb, call = self._inbox.popleft()
            if verb == "cancel":
                self._calls.pop(call.id, None)
                if self._session is not None:
                    self._session.cancel(call.id)
            elif not call.is_done:
                self._calls[call.id] = call
                if self._session is not None:
                    self._session.submit(call.id, call.body, call.arrays)

    def _connect(self, context: zmq.Context) -> None:
        now = time.monotonic()
        if self._look_at is not None and now < self._look_at:
            return
        self._look_at = None
        try:
            credentials, self._credentials = self._credentials or self._find(), None
            timeout = self._timeout_for(credentials)
            self._link = Link(context, credentials, timeout)
        except FocusError as error:
            if now < self._look_until:
                self._look_at = now + _LOOK_AGAIN_SECONDS
                return
            self._end_all(error)
            return
        self._look_until = 0.0
        self._used = credentials
        self._found_at = now
        self._session = Session(credentials.address, credentials.secret, timeout)
        for call in self._calls.values():
            self._session.submit(call.id, call.body, call.arrays)

    def _timeout_for(self, credentials: Credentials | None) -> float:
        if self._timeout is not None:
            return self._timeout
        return _LOOPBACK_SECONDS if credentials is None or is_loopback(credentials.address) else _REMOTE_SECONDS

    def _look_elsewhere(self) -> None:
        """Turns to where the server is by now, when it was restarted and what we know of it was too old."""
        now = time.monotonic()
        if self._link is None or self._link.is_established or now - self._found_at < _LOOK_AGAIN_SECONDS:
            return
        self._found_at = now
        try:
            found = self._find()
        except FocusError:
            # Not back yet; the session knows how long to go on.
            return
        if found != self._used:
            self._credentials = found
            self._session = None
            self._drop_link(0)

    def _work(self) -> None:
        """Everything that can be done without waiting: incoming first, so that a late look is no silence."""
        session, link = self._session, self._link
        if session is None or link is None:
            return
        failure = link.look()
        for frames in link.receive(is_last=failure is not None):
            session.receive(frames)
        if failure is not None:
            session.fail(failure)
        session.tick()
        for outgoing in session.take_outgoing():
            failure = link.send(outgoing)
            if failure is not None:
                session.fail(failure)
                break
        if session.welcome is not None:
            self._note_welcome(session.welcome)
        for event in session.take_events():
            self._deliver(event)
        if session.failure is not None:
            self._session = None
            self._drop_link(0)
            if self._calls:
                self._look_at = time.monotonic()
                self._look_until = self._look_at + self._timeout_for(self._used)

    def _note_welcome(self, welcome: wire.Welcome) -> None:
        self.limits = welcome.limits
        for call in self._calls.values():
            if call.retries == 0:
                # It was sent, and the photo is kept no longer than it may be sent again.
                call.arrays = {}

    def _deliver(self, event: Update | Finished) -> None:
        call = self._calls.get(event.id)
        if call is None:
            return
        if isinstance(event, Update):
            call.add(event)
            return
        is_lost = isinstance(event.outcome, ConnectionLostError)
        if is_lost and call.retries > 0 and not self._is_closed:
            call.retries -= 1
            return
        del self._calls[event.id]
        call.finish(event.outcome)

    def _end_all(self, error: FocusError) -> None:
        """Ends every call, and tells a server that is still there."""
        while self._inbox:
            verb, call = self._inbox.popleft()
            if verb == "start":
                self._calls[call.id] = call
            elif self._session is not None:
                self._session.cancel(call.id)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.finish(renewed(error))
        if self._session is not None and self._link is not None:
            for call in calls.values():
                self._session.cancel(call.id)
            for outgoing in self._session.take_outgoing():
                self._link.send(outgoing)

    def _drop_link(self, linger_milliseconds: int) -> None:
        if self._link is not None:
            self._link.close(linger_milliseconds)
            self._link = None
