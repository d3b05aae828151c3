"""Where a server listens: `tcp://HOST:PORT`, and whether that is this machine only."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from focus_backend.errors import ConfigError

_SHAPE = re.compile(r"tcp://(\[[^\[\]]*\]|[^\[\]:/;]*):([0-9]{1,5})")
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_ANYWHERE = ("*", "0.0.0.0", "::")
_REMEDY = "give one such as tcp://127.0.0.1:5555, tcp://[::1]:5555 or tcp://*:5555"


@dataclass(frozen=True)
class Address:
    """A checked address; `str()` of it is what ZeroMQ binds or connects to.

    Attributes:
        host: IPv4 or IPv6 address without brackets, `*`, or the name of a host or network interface.
        port: 0 for one that the system chooses.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp://[{self.host}]:{self.port}" if self.is_ipv6 else f"tcp://{self.host}:{self.port}"

    @property
    def is_ipv6(self) -> bool:
        """Whether the socket needs IPv6 switched on."""
        return ":" in self.host

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it; names other than localhost, which may lead anywhere, count as remote."""
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        # Pythons disagree on ::ffff:127.0.0.1; demanding a key there is safe.
        return address.is_loopback and getattr(address, "ipv4_mapped", None) is None

    @property
    def can_be_called(self) -> bool:
        """Whether a client can connect to it: it names one host and one port."""
        return self.host not in _ANYWHERE and self.port != 0


def parse_address(text: str) -> Address:
    """The address in `tcp://HOST:PORT`. `localhost` becomes 127.0.0.1: servers bind to addresses, and a hosts file is no proof.

    Raises:
        ConfigError: it is none, or of another transport.
    """
    if "://" in text and not text.startswith("tcp://"):
        raise ConfigError(f"address {text!r} is not TCP", _REMEDY)
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ConfigError(f"address {text!r} is not of the form tcp://HOST:PORT", _REMEDY)
    host, port = match[1], int(match[2])
    if port > 65535:
        raise ConfigError(f"port {port} in {text!r} is beyond 65535", "give a port between 0 and 65535, 0 for a free one")
    return Address(_checked_host(host, text), port)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches the address.

    Raises:
        ConfigError: it is no address.
    """
    return parse_address(address).is_loopback


def _checked_host(host: str, text: str) -> str:
    if host.lower() == "localhost":
        return "127.0.0.1"
    if host == "*":
        return host
    try:
        if host.startswith("["):
            return str(ipaddress.IPv6Address(host[1:-1]))
        # The system would read 127.1 or 0177.0.0.1 as addresses; what looks like one has to be one.
        if re.fullmatch(r"[0-9.]+", host):
            return str(ipaddress.IPv4Address(host))
    except ValueError as error:
        raise ConfigError(f"host {host!r} in {text!r} is no IP address", _REMEDY) from error
    if _NAME.fullmatch(host) is None:
        raise ConfigError(f"host {host!r} in {text!r} is neither an IP address nor a name", _REMEDY)
    return host
