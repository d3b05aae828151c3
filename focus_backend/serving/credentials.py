"""All that a client needs to talk to a server, found from what the user said about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from focus_backend.errors import ConfigError, RefusedError, ServerError
from focus_backend.serving.addresses import Address, parse_address
from focus_backend.serving.keys import read_client_file
from focus_backend.serving.private_files import UnreadableFileError, read_private
from focus_backend.serving.ready import ReadyFile, live_servers, read_ready

_START = "start one with `focus-backend serve`"


@dataclass(frozen=True)
class Credentials:
    """All that is needed to talk to one server.

    Attributes:
        address: "tcp://127.0.0.1:40123".
        server_key: Z85.
        secret: from the ready file, for the server's owner; "" for others.
        public_key: the client's own CURVE pair, Z85; "" for the owner, who makes a fresh one for each connection.
        secret_key: its other half.
    """

    address: str
    server_key: str
    secret: str = field(default="", repr=False)
    public_key: str = ""
    secret_key: str = field(default="", repr=False)


def find_credentials(server: str | Path, key: Path | None = None) -> Credentials:
    """What is needed to talk to `server`.

    Args:
        server: "auto" for the newest server of this user that lives, or for the address in `key`; a ready file; a key
            file that holds an address; or "tcp://HOST:PORT".
        key: a key file, for a server of somebody else or on another machine.

    Raises:
        ServerError: there is no such server, or a file is missing or damaged.
        RefusedError: the server needs a key.
        ConfigError: `server` is no address, or does not go with `key`.
    """
    text = str(server)
    if "://" in text:
        return _of_address(_callable_address(text), key)
    if text == "auto":
        return _of_key(key) if key is not None else _of_ready(_newest()[1])
    if key is not None:
        raise ConfigError(f"a key goes with an address, not with the file {text}", "give tcp://HOST:PORT and the key, or the file alone")
    return _of_file(Path(server))


def _of_address(address: Address, key: Path | None) -> Credentials:
    if key is not None:
        return _of_key(key, address)
    if not address.is_loopback:
        raise RefusedError(f"{address} is on another machine and lets in known keys only", "give a key file with --key")
    for _, ready in live_servers():
        if parse_address(ready.address) == address:
            return _of_ready(ready)
    raise ServerError(f"no server of yours listens at {address}", f"{_START}, or give its ready file or a key file")


def _of_key(path: Path, address: Address | None = None) -> Credentials:
    content = read_client_file(path)
    if address is None:
        if not content["address"]:
            raise ServerError(f"key file {path} holds no address", "give the server's as tcp://HOST:PORT")
        address = _callable_address(content["address"])
    return Credentials(str(address), content["server_key"], public_key=content["public_key"], secret_key=content["secret_key"])


def _of_file(path: Path) -> Credentials:
    try:
        is_key = "focus_key" in read_private(path)
    except UnreadableFileError as error:
        remedy = f"{_START} and give its ready file, a key file, tcp://HOST:PORT or auto"
        raise ServerError(f"no server: {error}", remedy) from error
    return _of_key(path) if is_key else _of_ready(read_ready(path))


def _of_ready(ready: ReadyFile) -> Credentials:
    return Credentials(str(parse_address(ready.address)), ready.public_key, secret=ready.secret)


def _newest() -> tuple[Path, ReadyFile]:
    servers = live_servers()
    if not servers:
        raise ServerError("no server of yours is running", _START)
    return servers[0]


def _callable_address(text: str) -> Address:
    address = parse_address(text)
    if not address.can_be_called:
        raise ConfigError(f"{text!r} names no host and port to connect to", "give one such as tcp://192.168.0.7:5555")
    return address
