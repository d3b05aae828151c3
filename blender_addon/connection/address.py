# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a backend listens: `tcp://HOST:PORT`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import AddonError

_NAME = re.compile(r"(?!-)[a-z0-9_.-]{1,253}(?<![-.])")
# Servers listen at these, but nobody can connect to them.
_ANYWHERE = ("0.0.0.0", "::")
_REMEDY = "give one such as tcp://127.0.0.1:5555"


@dataclass(frozen=True)
class Address:
    """A host and a port; `str()` of it is what ZeroMQ connects to.

    Attributes:
        host: IPv4 or IPv6 address without brackets, or a name.
        port: 1 to 65535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine. Names may lead anywhere and count as another."""
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return address.is_loopback and getattr(address, "ipv4_mapped", None) is None


def parse_address(text: str) -> Address:
    """The address a user gave, with or without `tcp://`; `localhost` is 127.0.0.1, where backends listen.

    Raises:
        AddonError: it names no host and port to connect to.
    """
    text = text.strip()
    try:
        parts = urlsplit(text if "://" in text else f"tcp://{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _no_address(text) from None
    if parts.scheme != "tcp":
        raise AddonError(f"address {text!r} is not TCP", _REMEDY, "config")
    if not host or not port or parts.username is not None or parts.path or parts.query or parts.fragment:
        raise _no_address(text)
    host = _checked_host("127.0.0.1" if host == "localhost" else host)
    if not host:
        raise _no_address(text)
    return Address(host, port)


def _checked_host(host: str) -> str:
    """The host in one way of writing; "" if it is none to connect to."""
    # What looks like an IP address must be one: the system reads 127.1 and 0177.0.0.1 as addresses, too.
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        try:
            host = str(ipaddress.ip_address(host))
        except ValueError:
            return ""
        return "" if host in _ANYWHERE else host
    return host if _NAME.fullmatch(host) else ""


def _no_address(text: str) -> AddonError:
    return AddonError(f"{text[:80]!r} is no address of a backend", _REMEDY, "config")
