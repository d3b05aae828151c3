"""Addresses: what is understood, what counts as this machine only, what is refused."""

from __future__ import annotations

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from focus_backend.errors import ConfigError
from focus_backend.serving.addresses import is_loopback, parse_address


@pytest.mark.parametrize(
    ("text", "written", "loopback"),
    [
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", True),
        ("tcp://127.3.2.1:65535", "tcp://127.3.2.1:65535", True),
        ("tcp://localhost:5555", "tcp://127.0.0.1:5555", True),
        ("tcp://LocalHost:5555", "tcp://127.0.0.1:5555", True),
        ("tcp://[::1]:5555", "tcp://[::1]:5555", True),
        ("tcp://[0:0:0:0:0:0:0:1]:5555", "tcp://[::1]:5555", True),
        ("tcp://*:5555", "tcp://*:5555", False),
        ("tcp://0.0.0.0:5555", "tcp://0.0.0.0:5555", False),
        ("tcp://[::]:5555", "tcp://[::]:5555", False),
        ("tcp://[fe80::1%eth0]:5555", "tcp://[fe80::1%eth0]:5555", False),
        ("tcp://192.168.0.7:5555", "tcp://192.168.0.7:5555", False),
        ("tcp://eth0:5555", "tcp://eth0:5555", False),
        ("tcp://lo:5555", "tcp://lo:5555", False),
        ("tcp://render-1.example.org:5555", "tcp://render-1.example.org:5555", False),
        ("tcp://localhost.evil.org:5555", "tcp://localhost.evil.org:5555", False),
    ],
)
def test_addresses_are_understood(text, written, loopback):
    address = parse_address(text)
    assert str(address) == written
    # Names of interfaces say nothing sure: they demand keys.
    assert address.is_loopback is is_loopback(text) is loopback
    assert parse_address(written) == address


def test_an_ipv4_address_in_ipv6_clothes_demands_keys():
    assert not is_loopback("tcp://[::ffff:127.0.0.1]:1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "auto",
        "127.0.0.1:5555",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:*",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:99999999",
        "tcp://127.0.0.1: 55",
        "tcp://127.0.0.1:5555/",
        "tcp://127.0.0.1:5555\n",
        "tcp://:5555",
        "tcp://::1:5555",
        "tcp://[::1:5555",
        "tcp://[127.0.0.1]:5555",
        "tcp://[]:5555",
        "tcp://127.1:5555",
        "tcp://300.0.0.1:5555",
        "tcp://0177.0.0.1:5555",
        "tcp://me@host:5555",
        "tcp://a b:5555",
        "tcp://192.168.0.1:5;127.0.0.1:6",
        "tcp://eth0;host:5555",
        "TCP://127.0.0.1:5555",
        "ipc:///tmp/focus",
        "inproc://focus",
        "http://127.0.0.1:80",
        "tcp://127.0.0.1:٣",  # a digit, in Arabic
    ],
)
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(ConfigError) as refused:
        parse_address(text)
    assert "\n" not in str(refused.value)
    assert refused.value.remedy


@given(st.text(max_size=60) | st.from_regex(r"tcp://[\[\]*:;.%a-f0-9]{0,30}:[0-9]{0,6}", fullmatch=True))
def test_no_text_breaks_it(text):
    try:
        address = parse_address(text)
    except ConfigError:
        return
    assert 0 <= address.port <= 65535
    assert parse_address(str(address)) == address


def test_what_a_client_can_call():
    assert parse_address("tcp://127.0.0.1:5555").can_be_called
    assert not any(parse_address(text).can_be_called for text in ("tcp://127.0.0.1:0", "tcp://*:1", "tcp://[::]:1", "tcp://0.0.0.0:1"))


@pytest.mark.parametrize("text", ["tcp://localhost:0", "tcp://127.0.0.1:0", "tcp://*:0"])
def test_zeromq_binds_what_was_understood(text):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(str(parse_address(text)))
