"""The server's sockets: where clients of each kind and the workers connect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq

from focus_backend.errors import ConfigError, ServerError
from focus_backend.serving.addresses import Address, parse_address
from focus_backend.serving.authentication import OWNER, REMOTE, WORKER, protect
from focus_backend.serving.config import ServerConfig
from focus_backend.serving.keys import KeyFolder
from focus_backend.serving.wire import ANSWER_LIMITS

# Messages of one client that wait to be looked at.
_MOST_MESSAGES = 32
# Answers are large; more of them wait where their bytes are counted.
_MOST_ANSWERS = 8
_HANDSHAKE_MILLISECONDS = 5000
# Connections that the system accepted and ZeroMQ has not looked at yet.
_BACKLOG = 1024
_LOOPBACK = "tcp://127.0.0.1:0"


@dataclass(frozen=True)
class Endpoint:
    """A bound socket for clients.

    Attributes:
        kind: "owner" or "remote".
        socket: a ROUTER.
        address: where it listens, with the port the system chose.
        public_key: of the server there, Z85.
    """

    kind: str
    socket: zmq.Socket[Any]
    address: str
    public_key: str = field(repr=False)


def planned(config: ServerConfig) -> list[Address]:
    """Where the server is to listen; its owner always finds it on the loopback, too.

    Raises:
        ConfigError: an address is none, or one is not of this machine only while no client has a key.
    """
    addresses = [parse_address(text) for text in config.bind]
    remote = [address for address in addresses if not address.is_loopback]
    if remote and not any(entry.revoked is None for entry in KeyFolder(config.keys).list()):
        raise ConfigError(
            f"{remote[0]} can be reached from other machines, but no client has a key",
            "make one with `focus-backend keys new NAME -o NAME.key`",
        )
    if len(remote) == len(addresses):
        addresses.append(parse_address(_LOOPBACK))
    return addresses


def bind_clients(context: zmq.Context[Any], config: ServerConfig, addresses: Sequence[Address]) -> list[Endpoint]:
    """Sockets for clients, bound. The context needs its `Authenticator` before.

    Raises:
        ServerError: an address is taken or not of this machine.
        ConfigError, OutputError: the server's own key cannot be read or written.
    """
    fresh_public, fresh_secret = zmq.curve_keypair()
    fresh = (fresh_public.decode("ascii"), fresh_secret.decode("ascii"))
    endpoints = []
    for address in addresses:
        kind = OWNER if address.is_loopback else REMOTE
        keys = fresh if kind == OWNER else KeyFolder(config.keys).server_keys()
        socket = context.socket(zmq.ROUTER)
        _guard(socket, config.limits.frame_bytes)
        protect(socket, kind, keys)
        socket.set(zmq.IPV6, address.is_ipv6)
        endpoints.append(Endpoint(kind, socket, _bind(socket, str(address)), keys[0]))
    return endpoints


def bind_workers(context: zmq.Context[Any]) -> tuple[zmq.Socket[Any], str]:
    """The socket for workers and its address.

    Raises:
        ServerError: there is no free port.
    """
    socket = context.socket(zmq.ROUTER)
    socket.set(zmq.ROUTER_MANDATORY, 1)
    socket.set(zmq.LINGER, 0)
    # Any user of the machine can knock here.
    socket.set(zmq.MAXMSGSIZE, ANSWER_LIMITS.frame_bytes)
    socket.set(zmq.HANDSHAKE_IVL, _HANDSHAKE_MILLISECONDS)
    protect(socket, WORKER)
    return socket, _bind(socket, _LOOPBACK)


def _guard(socket: zmq.Socket[Any], frame_bytes: int) -> None:
    """Bounds each frame, and how long an unfinished handshake is held; ZeroMQ has no bound for the frames of one message."""
    options = {
        # A header may be larger than a photo where somebody wants small photos only. Encryption adds some bytes.
        zmq.MAXMSGSIZE: max(frame_bytes, 2**20) + 256,
        zmq.ROUTER_MANDATORY: 1,
        zmq.SNDHWM: _MOST_ANSWERS,
        zmq.RCVHWM: _MOST_MESSAGES,
        zmq.HEARTBEAT_IVL: 3000,
        # A large photo on a slow line holds the heartbeats behind it back.
        zmq.HEARTBEAT_TIMEOUT: 60000,
        zmq.HANDSHAKE_IVL: _HANDSHAKE_MILLISECONDS,
        zmq.BACKLOG: _BACKLOG,
        zmq.LINGER: 0,
    }
    for option, value in options.items():
        socket.set(option, value)


def _bind(socket: zmq.Socket[Any], address: str) -> str:
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise ServerError(f"address {address} is taken", "choose another port, or 0 for a free one") from error
        raise ServerError(f"the server cannot listen on {address}: {error.strerror}", "choose an address of this machine") from error
    # With the port that the system chose.
    return str(socket.getsockopt_string(zmq.LAST_ENDPOINT)).rstrip("\0")
