"""Who may connect: ZeroMQ asks for every handshake, over ZAP (RFC 27), and is answered from the server's own loop."""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85

from focus_backend.serving.keys import KeyEntry, is_key_name, read_entry
from focus_backend.serving.private_files import UnreadableFileError

OWNER, REMOTE, WORKER = "owner", "remote", "worker"
_ZAP_ADDRESS = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_REQUEST_FRAMES = 6
# Whoever knocks in a loop must not fill the disk with our log.
_LOGGED_REFUSALS, _REFUSAL_SECONDS = 20, 10.0
# What identifies a file's state without reading it.
_Signature = tuple[int, int, int, int]


def protect(socket: zmq.Socket[Any], domain: str, keys: tuple[str, str] | None = None) -> None:
    """Let nobody through a socket, that is bound after this, whom the `Authenticator` of its context does not let in.

    Args:
        domain: "owner" or "remote" for CURVE, "worker" for PLAIN.
        keys: with CURVE, the server's public and secret key, Z85.
    """
    if keys is not None:
        socket.curve_publickey, socket.curve_secretkey = keys[0].encode(), keys[1].encode()
        socket.curve_server = True
    else:
        socket.plain_server = True
    socket.zap_domain = domain.encode()
    # Without it a socket whose authenticator is missing lets everybody in.
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


class ClientKeys:
    """The keys let in from other machines, as the files of the key folder say at this moment.

    Whatever is missing, damaged or not readable is not let in.

    Args:
        folder: the key folder.
    """

    def __init__(self, folder: Path) -> None:
        self._clients = folder / "clients"
        self._entries: dict[str, tuple[_Signature, KeyEntry | None]] = {}
        # Under a name that connections carry no other key may come in later.
        self._admitted: dict[str, str] = {}

    def name_of(self, public_key: bytes) -> str | None:
        """The name under which a key is let in, None if it is not.

        Args:
            public_key: its 32 bytes, as ZAP has them.
        """
        if len(public_key) != 32:
            return None
        text = z85.encode(public_key).decode()
        found = [entry for entry in self._all() if entry.public_key == text]
        # A copy of a revoked key's file lets nobody in.
        if not found or any(entry.revoked is not None for entry in found):
            return None
        name = found[0].name
        return name if self._admitted.setdefault(name, text) == text else None

    def is_allowed(self, name: str) -> bool:
        """Whether the key let in under this name still is: asked at every message, looks at one file."""
        try:
            entry = self._entry(name, os.stat(self._clients / f"{name}.json"))
        except OSError:
            return False
        if entry is None or entry.revoked is not None:
            return False
        return self._admitted.get(name, entry.public_key) == entry.public_key

    def _all(self) -> list[KeyEntry]:
        """All keys by name; a handshake of anybody costs a look at each file, so this has to be quick."""
        try:
            with os.scandir(self._clients) as files:
                states = {file.name[: -len(".json")]: file.stat() for file in files if file.name.endswith(".json")}
        except OSError:
            return []
        for gone in self._entries.keys() - states:
            del self._entries[gone]
        entries = (self._entry(name, states[name]) for name in sorted(states) if is_key_name(name))
        return [entry for entry in entries if entry is not None]

    def _entry(self, name: str, state: os.stat_result) -> KeyEntry | None:
        signature = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        known = self._entries.get(name)
        if known is None or known[0] != signature:
            known = self._entries[name] = (signature, _readable_entry(self._clients / f"{name}.json"))
        return known[1]


class Authenticator:
    """Answers ZAP on the loop that polls `socket`; has to exist before any protected socket is bound.

    Args:
        context: of the protected sockets.
        clients: who is let in from other machines.
        worker_tokens: the token of each worker that may connect, by its number.
        log: called with an event's name and its plain fields; no secrets are among them.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        *,
        clients: ClientKeys,
        worker_tokens: Callable[[], Mapping[int, bytes]],
        log: Callable[..., None] | None = None,
    ) -> None:
        self._clients = clients
        self._worker_tokens = worker_tokens
        self._log = log or (lambda event, **fields: None)
        self._refusals, self._refusals_since = 0, time.monotonic()
        self.socket: zmq.Socket[Any] = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind(_ZAP_ADDRESS)

    def answer(self) -> bool:
        """Handle one waiting request, if there is one; says whether there was. Never waits and never raises for what it holds."""
        try:
            frames = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return False
        if b"" not in frames[1:]:
            return True
        empty = frames.index(b"", 1)
        route, request = frames[: empty + 1], frames[empty + 1 :]
        reply = self._reply(request)
        if reply is not None:
            try:
                self.socket.send_multipart([*route, *reply], zmq.NOBLOCK)
            except zmq.ZMQError as error:
                # Who asked is gone, or too slow: it is not let in.
                self._log_refusal("authentication-unanswered", reason=error.strerror)
        return True

    def close(self) -> None:
        """Close the socket; from now on nobody new is let in."""
        self.socket.close()

    def _reply(self, request: Sequence[bytes]) -> list[bytes] | None:
        if len(request) < _REQUEST_FRAMES or request[0] != _VERSION:
            self._log_refusal("authentication-malformed", frames=len(request))
            return None
        _, number, domain, address, _, mechanism, *credentials = request
        user, reason = self._user(domain, mechanism, credentials)
        words = {"domain": _plain(domain), "address": _plain(address), "mechanism": _plain(mechanism)}
        if user is None:
            self._log_refusal("connection-refused", reason=reason, **words)
            return [_VERSION, number, b"400", reason.encode(), b"", b""]
        self._log("connection-admitted", user=user, **words)
        return [_VERSION, number, b"200", b"OK", user.encode(), b""]

    def _log_refusal(self, event: str, **fields: Any) -> None:
        now = time.monotonic()
        if now - self._refusals_since > _REFUSAL_SECONDS:
            if self._refusals > _LOGGED_REFUSALS:
                self._log("refusals-not-logged", level="warning", count=self._refusals - _LOGGED_REFUSALS)
            self._refusals, self._refusals_since = 0, now
        self._refusals += 1
        if self._refusals <= _LOGGED_REFUSALS:
            self._log(event, level="warning", **fields)

    def _user(self, domain: bytes, mechanism: bytes, credentials: Sequence[bytes]) -> tuple[str | None, str]:
        """The user id and "", or None and why nobody is let in."""
        if domain == WORKER.encode() and mechanism == b"PLAIN" and len(credentials) == 2:
            return self._worker(*credentials), "wrong token"
        if mechanism != b"CURVE" or len(credentials) != 1 or len(credentials[0]) != 32:
            return None, "wrong mechanism"
        if domain == OWNER.encode():
            # Who knows this server's public key has read its ready file, and each request proves the rest.
            return OWNER, ""
        if domain == REMOTE.encode():
            return self._clients.name_of(credentials[0]), "unknown or revoked key"
        return None, "unknown domain"

    def _worker(self, user: bytes, token: bytes) -> str | None:
        for number, expected in self._worker_tokens().items():
            if user == str(number).encode():
                return str(number) if expected and hmac.compare_digest(token, expected) else None
        return None


def _readable_entry(path: Path) -> KeyEntry | None:
    try:
        return read_entry(path)
    except UnreadableFileError:
        return None


def _plain(text: bytes) -> str:
    """Text for a log line: an attacker's bytes stay short and printable."""
    return text[:64].decode("ascii", "backslashreplace")
