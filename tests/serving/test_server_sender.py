"""Answers to clients that read slowly, late or never."""

from __future__ import annotations

import time

import pytest
import zmq

from focus_backend.serving.client_sender import ClientSender
from focus_backend.serving.outbox import Route, ToClient

_SETTLED_SECONDS = 0.3


class _Ends:
    """A server's socket and a client's that reads when it is told to."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.front = self.context.socket(zmq.ROUTER)
        self.front.router_mandatory = True
        self.front.sndhwm = 2
        self.front.linger = 0
        port = self.front.bind_to_random_port("tcp://127.0.0.1")
        self.client = self.context.socket(zmq.DEALER)
        self.client.rcvhwm = 2
        self.client.linger = 0
        self.client.connect(f"tcp://127.0.0.1:{port}")
        self.client.send(b"hello")
        self.route = Route("owner", self.front.recv_multipart()[0], "owner", 0)
        self.now = 0.0
        self.gone: list[Route] = []
        self.logged: list[str] = []
        self.undelivered: list[str] = []
        self.sender = ClientSender(
            [self.front],
            gone=self.gone.append,
            undelivered=lambda _route, message_id: self.undelivered.append(message_id),
            log=self._log,
            clock=lambda: self.now,
        )

    def _log(self, event: str, **_fields: object) -> None:
        self.logged.append(event)

    def message(self, text: bytes, *, is_final: bool = True) -> ToClient:
        # So large that the system's own buffers hold few of them.
        return ToClient(self.route, [text.ljust(2_000_000)], is_final, text.decode())

    def fill(self) -> int:
        """Sends until answers wait for good; how many were sent."""
        sent = 0
        # A busy system takes its time to move answers into its buffers, after which there is room again.
        settled = time.monotonic() + _SETTLED_SECONDS
        while self.sender.is_empty or time.monotonic() < settled:
            if self.sender.is_empty:
                self.sender.send(self.message(b"%d" % sent))
                sent += 1
                settled = time.monotonic() + _SETTLED_SECONDS
            else:
                self.sender.retry()
                time.sleep(0.01)
        return sent


@pytest.fixture
def ends():
    ends = _Ends()
    yield ends
    ends.context.destroy(linger=0)


def test_what_waits_arrives_in_order_and_progress_is_dropped(ends):
    sent = ends.fill()
    ends.sender.send(ends.message(b"progress", is_final=False))
    ends.sender.send(ends.message(b"last"))
    received: list[bytes] = []
    latest = time.monotonic() + 30
    while b"last" not in received and time.monotonic() < latest:
        ends.sender.retry()
        if ends.client.poll(10):
            received.append(ends.client.recv().strip())
    assert received == [b"%d" % number for number in range(sent)] + [b"last"]
    assert ends.sender.is_empty
    assert not ends.gone


def test_who_reads_nothing_for_long_is_given_up(ends):
    ends.fill()
    ends.now = 29.0
    ends.sender.retry()
    assert not ends.gone
    ends.now = 31.0
    ends.sender.retry()
    assert ends.gone == [ends.route]
    assert ends.logged == ["client-does-not-read"]
    assert ends.sender.is_empty
    # Whoever asks again must not hear that it was answered.
    assert ends.undelivered


def test_who_lets_too_much_wait_is_given_up(ends):
    ends.fill()
    most = 256 * 2**20 // 2_000_000 + 10
    for _ in range(most):
        if not ends.gone:
            ends.sender.send(ends.message(b"more"))
    assert ends.gone == [ends.route]


def test_who_has_gone_is_told_of(ends):
    ends.sender.send(ToClient(Route("owner", b"\0nobody", "owner", 0), [b"answer"], True, "r1"))
    assert [route.identity for route in ends.gone] == [b"\0nobody"]
    assert ends.undelivered == ["r1"]
    ends.fill()
    ends.client.close()
    latest = time.monotonic() + 30
    while ends.route not in ends.gone and time.monotonic() < latest:
        # ZeroMQ takes some more before it hears of the end.
        ends.sender.send(ends.message(b"more"))
        ends.sender.retry()
        time.sleep(0.01)
    assert ends.route in ends.gone
    assert ends.sender.is_empty
