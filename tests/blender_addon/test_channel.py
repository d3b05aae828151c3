"""The connection that the add-on uses, with real backends, and with scripted ones for what those never do."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from blender_addon.connection.channel import Channel, Event, Lost
from blender_addon.connection.credentials import Credentials, read_key_file, read_ready_file
from blender_addon.errors import AddonError
from focus_backend.serving import wire
from focus_backend.serving.keys import KeyFolder
from serving.conftest import RunningServer, start
from serving.scripted_server import ScriptedServer, packed, result, welcome

_FIELDS = ("address", "server_key", "secret", "public_key", "secret_key")
# Guards against hanging only.
PATIENCE = 20.0


class Ear:
    """Collects what a channel tells."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.events: list[Event] = []

    def until(self, claim: Callable[[Event], Any]) -> Event:
        """The first event of which it is true."""
        latest = time.monotonic() + PATIENCE
        while True:
            new = self.channel.events()
            self.events += new
            for event in new:
                if claim(event):
                    return event
            assert time.monotonic() < latest, f"it never came, but {[type(event.body).__name__ for event in self.events]}"
            time.sleep(0.005)

    def final(self, message_id: str) -> Event:
        """The last answer to a request."""
        return self.until(lambda event: event.id == message_id and _is_final(event))

    def finals(self, *ids: str) -> list[Event]:
        """The last answers to several requests, in whatever order they come."""
        for message_id in ids:
            if message_id not in {event.id for event in self.events if _is_final(event)}:
                self.final(message_id)
        return [next(event for event in self.events if event.id == message_id and _is_final(event)) for message_id in ids]

    def lost(self) -> Lost:
        """Why the connection was lost."""
        return self.until(lambda event: isinstance(event.body, Lost)).body


def _is_final(event: Event) -> bool:
    return not isinstance(event.body, (wire.Accepted, wire.Progress))


@pytest.fixture
def listen() -> Iterator[Callable[..., Ear]]:
    """Makes channels, which are closed at the end: `listen(credentials, quiet_seconds=10.0)`."""
    channels: list[Channel] = []

    def open_one(credentials: Any, **settings: Any) -> Ear:
        given = Credentials(**{name: getattr(credentials, name) for name in _FIELDS})
        channels.append(Channel(given, **settings))
        return Ear(channels[-1])

    yield open_one
    for channel in channels:
        channel.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "focus-channel"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A backend with a quick pipeline, for all tests that leave it alive."""
    running = start(tmp_path_factory.mktemp("server"))
    running.wait_ready()
    yield running
    running.end()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RunningServer]:
    """One that the test may harm."""
    running = start(tmp_path / "own server ü")
    running.wait_ready()
    yield running
    running.end()


def photo(orders: str) -> dict[str, wire.Array]:
    """What the quick pipeline follows."""
    return {"photo": wire.Array.of(orders.encode())}


GEOMETRY = wire.Reconstruct(parts=["geometry"], preview_side=8)


# With a real backend


def test_requests_are_answered(server, listen):
    ear = listen(read_ready_file(server.ready_path))
    ids = [ear.channel.send(wire.Hello("test")), *(ear.channel.send(GEOMETRY, photo(f"faces {count}")) for count in (1, 2))]
    hello, one, two = ear.finals(*ids)
    assert hello.body.is_owner
    assert [len(event.body.faces) for event in (one, two)] == [1, 2]
    assert two.arrays["face1/neutral"].shape == (4, 3)


def test_progress_comes_with_previews(server, listen):
    ear = listen(server.credentials)
    message_id = ear.channel.send(GEOMETRY, photo("sleep 0.4"))
    assert ear.final(message_id).body.faces
    progress = [event for event in ear.events if isinstance(event.body, wire.Progress)]
    assert progress
    assert any(event.arrays["preview"].shape == (2, 2, 3) for event in progress if event.arrays)
    assert all(event.id == message_id for event in ear.events)


def test_a_huge_answer_comes_while_the_window_looks(server, listen):
    ear = listen(server.credentials)
    message_id = ear.channel.send(GEOMETRY, photo("bytes 100000000"))
    data = ear.final(message_id).arrays["photo"].data
    assert len(data) == 100_000_000
    assert bytes(data[-3:]) == b"\x07\x07\x07"


def test_a_cancelled_request(server, listen, tmp_path):
    ear = listen(server.credentials)
    message_id = ear.channel.send(GEOMETRY, photo(f"until {tmp_path / 'never'}"))
    ear.until(lambda event: isinstance(event.body, wire.Progress))
    done = ear.channel.send(wire.Cancel(message_id))
    cancelled, answer = ear.finals(message_id, done)
    assert cancelled.body.code == "cancelled"
    assert answer.body.found


@pytest.mark.parametrize("is_awaited", [True, False])
def test_a_closed_channel_cancels_what_is_under_way(server, listen, tmp_path, is_awaited):
    ear = listen(server.credentials)
    ear.channel.send(GEOMETRY, photo(f"until {tmp_path / 'never'}"))
    ear.until(lambda event: isinstance(event.body, wire.Progress))
    ear.channel.close(is_awaited=is_awaited)
    ear.channel._thread.join(PATIENCE)
    assert not ear.channel._thread.is_alive()
    talker = server.talk()
    latest = time.monotonic() + PATIENCE
    while (report := talker.ask(wire.Status())).running:
        assert time.monotonic() < latest, "it is still worked on"
    assert report.failed["cancelled"] >= 1


def test_closed_with_answers_under_way(server, listen):
    ear = listen(server.credentials)
    for _ in range(4):
        ear.channel.send(GEOMETRY, photo("bytes 50000000"))
    ear.until(lambda event: isinstance(event.body, wire.Result))
    before = time.monotonic()
    ear.channel.close()
    ear.channel.close()
    # A bound that the contract names.
    assert time.monotonic() - before < 1.0
    late = ear.channel.send(wire.Hello())
    assert isinstance(ear.final(late).body, Lost)


@pytest.mark.skipif(sys.platform == "win32", reason="interfaces have other names")
def test_a_key_file_lets_in_from_elsewhere(tmp_path, listen):
    keys = KeyFolder(tmp_path / "keys")
    keys.new("anna", "", tmp_path / "anna.key")
    # By the name of the network interface it counts as open to other machines.
    interface = "lo" if sys.platform == "linux" else "lo0"
    running = start(tmp_path / "server", keys=str(tmp_path / "keys"), bind=[f"tcp://{interface}:0"])
    try:
        address = f"tcp://127.0.0.1:{running.port_for_others()}"
        ear = listen(read_key_file(tmp_path / "anna.key", address))
        assert not ear.final(ear.channel.send(wire.Hello())).body.is_owner
        keys.revoke("anna")
        assert ear.lost().problem
        assert listen(read_key_file(tmp_path / "anna.key", address)).lost().code == "refused"
    finally:
        running.end()


def test_killed_in_the_middle(own_server, listen, tmp_path):
    ear = listen(own_server.credentials)
    ear.channel.send(GEOMETRY, photo(f"until {tmp_path / 'never'}"))
    ear.until(lambda event: isinstance(event.body, wire.Progress))
    own_server.send_signal(signal.SIGKILL)
    lost = ear.lost()
    assert "went away" in lost.problem
    assert lost.code == "connection"
    again = ear.channel.send(wire.Hello())
    assert ear.final(again).body == lost


@pytest.mark.skipif(os.name != "posix", reason="stops a process by a signal")
def test_a_frozen_backend_is_noticed_and_closing_does_not_wait_for_it(own_server, listen):
    ear = listen(own_server.credentials, quiet_seconds=0.6)
    ear.final(ear.channel.send(wire.Hello()))
    own_server.send_signal(signal.SIGSTOP)
    try:
        ear.channel.send(GEOMETRY, photo("faces 1"))
        assert "has not answered for 0.6 s" in ear.lost().problem
        other = listen(own_server.credentials)
        other.channel.send(GEOMETRY, photo("faces 1"))
        other.channel.close()
    finally:
        own_server.send_signal(signal.SIGCONT)


def test_an_idle_connection_notices_the_end_too(own_server, listen):
    ear = listen(own_server.credentials, quiet_seconds=0.6)
    ear.final(ear.channel.send(wire.Hello()))
    time.sleep(1.0)
    # Pings have kept it up, and are nobody else's business.
    assert not ear.channel.events()
    own_server.send_signal(signal.SIGTERM)
    assert ear.lost().problem


def test_a_wrong_secret_is_refused_at_once(server, listen):
    ear = listen(replace(server.credentials, secret="0" * 64))
    assert ear.lost().code == "refused"


def test_a_wrong_server_key_is_refused(server, listen):
    ear = listen(replace(server.credentials, server_key=zmq.curve_keypair()[0].decode()), quiet_seconds=2.0)
    assert "no backend answers" in (lost := ear.lost()).problem or lost.code == "refused"


# With scripted ones


def test_nobody_listens(listen):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        # Bound, but not listening: whoever connects is refused.
        ear = listen(Credentials(f"tcp://127.0.0.1:{port}", zmq.curve_keypair()[0].decode()))
        ear.channel.send(wire.Hello())
        assert "nobody listens" in ear.lost().problem


def test_somebody_else_listens_and_says_nothing(listen):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ear = listen(Credentials(f"tcp://127.0.0.1:{other.getsockname()[1]}", zmq.curve_keypair()[0].decode()), quiet_seconds=0.5)
        assert "no backend answers" in ear.lost().problem


@pytest.mark.parametrize("broken", [{"server_key": "short"}, {"server_key": "ü" * 40}, {"address": "nothing"}, {"address": "tcp://a:b"}])
def test_credentials_that_are_none(listen, broken):
    good = Credentials("tcp://127.0.0.1:1", zmq.curve_keypair()[0].decode())
    ear = listen(replace(good, **broken))
    assert ear.lost().code in ("refused", "config")


def test_requests_wait_until_the_backend_listens(listen):
    with ScriptedServer(lambda server, identity, message: server.send(identity, packed(message, result()))) as scripted:
        ear = listen(scripted.credentials)
        ids = [ear.channel.send(GEOMETRY, photo("x")) for _ in range(3)]
        ear.finals(*ids)
        heard = scripted.heard_of(wire.Reconstruct)
        assert [message.id for message in heard] == ids
        assert {message.secret for message in scripted.heard} == {scripted.credentials.secret}
        assert len(set(ids)) == 3


def test_every_channel_has_ids_of_its_own(listen):
    with ScriptedServer() as scripted:
        one, other = listen(scripted.credentials), listen(scripted.credentials)
        ids = [ear.channel.send(wire.Hello()) for ear in (one, other)]
        assert ids[0].rpartition("-")[0] != ids[1].rpartition("-")[0]
        for ear, message_id in zip((one, other), ids, strict=True):
            ear.final(message_id)


def test_no_pongs_are_a_loss(listen):
    with ScriptedServer(pongs=False) as scripted:
        ear = listen(scripted.credentials, quiet_seconds=0.5)
        ear.final(ear.channel.send(wire.Hello()))
        assert "has not answered" in ear.lost().problem


def _raw(**header: Any) -> list[bytes]:
    return [json.dumps(header).encode()]


def test_another_version_ends_the_connection(listen):
    with ScriptedServer(lambda server, identity, message: server.send(identity, _raw(focus=2, type="news", id=message.id))) as scripted:
        ear = listen(scripted.credentials)
        ear.channel.send(wire.Status())
        assert ear.lost().code == "version"


def test_an_answer_that_cannot_be_read_costs_its_request_only(listen):
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        if isinstance(message.body, wire.Status):
            server.send(identity, _raw(focus=1, type="result", id=message.id, body={"faces": "many"}))
        else:
            server.send(identity, packed(message, result()))

    with ScriptedServer(answer) as scripted:
        ear = listen(scripted.credentials)
        bad, good = ear.channel.send(wire.Status()), ear.channel.send(GEOMETRY, photo("x"))
        refused, answered = ear.finals(bad, good)
        assert refused.body.code == "protocol"
        assert answered.body.faces


@pytest.mark.parametrize("frames", [[b"\xff"], [b"{}"], [b""], [b"[", b"x"]])
def test_garbage_ends_the_connection(listen, frames):
    with ScriptedServer(lambda server, identity, message: server.send(identity, frames)) as scripted:
        ear = listen(scripted.credentials)
        ear.channel.send(wire.Status())
        assert "cannot be read" in ear.lost().problem


def test_answers_of_the_wrong_kind_and_to_nobody(listen):
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        server.send(identity, packed(wire.Message("somebody-1", message.body), result()))
        server.send(identity, packed(message, wire.Done()))
        server.send(identity, packed(message, result()))

    with ScriptedServer(answer) as scripted:
        ear = listen(scripted.credentials)
        message_id = ear.channel.send(GEOMETRY, photo("x"))
        assert ear.final(message_id).body.code == "protocol"
        ear.final(ear.channel.send(wire.Hello()))
        assert [event.id for event in ear.events if isinstance(event.body, wire.Result)] == []


def test_requests_that_cannot_be_sent(listen):
    with ScriptedServer(greeting=welcome(frame_bytes=2**17)) as scripted:
        ear = listen(scripted.credentials)
        broken = ear.channel.send(wire.Reconstruct(deadline_seconds=float("nan")), photo("x"))
        assert ear.final(broken).body.code == "protocol"
        wrong = ear.channel.send("no message", {"photo": "no array"})  # type: ignore[dict-item]
        assert ear.final(wrong).body.code == "protocol"
        ear.final(ear.channel.send(wire.Hello()))
        large = ear.channel.send(GEOMETRY, {"photo": wire.Array.of(bytes(2**18))})
        error = ear.final(large).body
        assert error.code == "photo"
        assert "0.125 MB" in error.problem
        assert not scripted.heard_of(wire.Reconstruct)


def test_an_error_about_nobody_ends_everything(listen):
    unknown = wire.pack(wire.Message("unknown", wire.Error("protocol", "a bad\nmessage\x07", "send another")))
    with ScriptedServer(lambda server, identity, message: server.send(identity, unknown)) as scripted:
        ear = listen(scripted.credentials)
        ear.channel.send(wire.Status())
        assert "refused: a bad message?" in ear.lost().problem


def test_many_threads_may_send(listen):
    with ScriptedServer(lambda server, identity, message: server.send(identity, packed(message, result()))) as scripted:
        ear = listen(scripted.credentials)
        ids: list[str] = []

        def send_some() -> None:
            ids.extend(ear.channel.send(GEOMETRY, photo("x")) for _ in range(25))

        threads = [threading.Thread(target=send_some) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(ids)) == 100
        latest = time.monotonic() + PATIENCE
        while len(ear.events) < 100 and time.monotonic() < latest:
            ear.events += ear.channel.events()
            time.sleep(0.01)
        assert {event.id for event in ear.events} == set(ids)


def test_without_zeromq(monkeypatch):
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(AddonError, match="ZeroMQ") as caught:
        Channel(Credentials("tcp://127.0.0.1:1", "k" * 40))
    assert caught.value.code == "missing-dependency"
