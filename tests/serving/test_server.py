"""The server as its clients see it: real processes, real sockets."""

from __future__ import annotations

import os
import signal
import socket
import time
from urllib.parse import urlsplit

import psutil
import pytest
import zmq

from focus_backend.serving import wire
from focus_backend.serving.credentials import Credentials
from focus_backend.serving.keys import KeyFolder


def _port(server) -> tuple[str, int]:
    parts = urlsplit(server.ready.address)
    return parts.hostname, parts.port


def _works(server) -> bool:
    talker = server.talk()
    return isinstance(talker.final(talker.reconstruct()).body, wire.Result)


def test_hello_says_what_the_workers_hold(quick_server):
    welcome = quick_server.talk().ask(wire.Hello())
    assert [model.name for model in welcome.models] == ["quick"]
    assert welcome.methods == ["fit", "network"]
    assert (welcome.workers, welcome.workers_ready, welcome.is_owner) == (2, 2, True)
    assert welcome.limits == quick_server.config.limits.published()


def test_a_photo_brings_progress_and_a_result_with_its_arrays(quick_server):
    talker = quick_server.talk()
    *before, last = talker.all_until_final(talker.reconstruct("sleep 0.2\nfaces 3", preview_side=64))
    assert isinstance(before[0].body, wire.Accepted)
    progress = [answer for answer in before if isinstance(answer.body, wire.Progress)]
    assert {answer.body.stage for answer in progress} >= {"landmarks", "fit", "result"}
    fractions = [answer.body.fraction for answer in progress]
    assert fractions == sorted(fractions)
    assert any(answer.arrays["preview"].shape == (2, 2, 3) for answer in progress if answer.arrays)
    assert [face.index for face in last.body.faces] == [0, 1, 2]
    assert last.arrays["face2/neutral"].shape == (4, 3)
    assert last.arrays["face2/neutral"].dtype == "float32"


def test_large_arrays_come_whole(quick_server):
    talker = quick_server.talk()
    answer = talker.final(talker.reconstruct("bytes 20000000", parts=["photo"]))
    assert bytes(answer.arrays["photo"].data) == b"\x07" * 20_000_000


def test_without_the_secret_nothing_is_done(quick_server):
    talker = quick_server.talk()
    for secret in ("", "0" * 64):
        for body in (wire.Hello(), wire.Status(), wire.Shutdown(), wire.Reconstruct()):
            assert talker.ask(body, secret=secret).code == "refused"
    assert _works(quick_server)


def test_requests_run_beside_each_other_on_different_workers(quick_server, tmp_path):
    talkers = [quick_server.talk() for _ in range(2)]
    ids = [talker.reconstruct(f"until {tmp_path / 'enough'}") for talker in talkers]
    for talker, message_id in zip(talkers, ids, strict=True):
        talker.until_started(message_id)
    (tmp_path / "enough").touch()
    results = [talker.final(message_id).body for talker, message_id in zip(talkers, ids, strict=True)]
    pids = {result.faces[0].document["pid"] for result in results}
    assert len(pids) == 2
    assert not pids & {os.getpid(), quick_server.process.pid}


def test_control_does_not_wait_behind_work(quick_server):
    talker, other = quick_server.talk(), quick_server.talk()
    ids = [talker.reconstruct("sleep 30") for _ in range(4)]
    talker.until_started(ids[1])
    assert other.ask(wire.Status()).running == 2
    assert isinstance(other.ask(wire.Ping()), wire.Pong)
    for target in ids:
        talker.send(wire.Cancel(target))
    assert _works(quick_server)


def test_cancelled_work_ends_at_once_and_its_worker_goes_on(start_server):
    server = start_server()
    server.wait_ready()
    talker, before = server.talk(), server.workers()
    waited_for = talker.reconstruct("sleep 60")
    talker.until_started(waited_for)
    next_one = talker.reconstruct()
    talker.send(wire.Cancel(waited_for))
    assert talker.final(waited_for).body.code == "cancelled"
    assert isinstance(talker.final(next_one).body, wire.Result)
    assert server.workers() == before


@pytest.mark.slow
def test_cancelling_work_that_does_not_listen_replaces_its_worker(start_server):
    server = start_server()
    server.wait_ready()
    talker, before = server.talk(), server.workers()
    deaf = talker.reconstruct("hang")
    talker.until_started(deaf)
    talker.send(wire.Cancel(deaf))
    assert talker.final(deaf).body.code == "cancelled"
    assert _works(server)
    assert not set(server.workers()) & set(before)


@pytest.mark.parametrize(
    ("order", "code", "words"),
    [
        ("raise", "internal", "ZeroDivisionError"),
        ("exit", "internal", "SystemExit"),
        ("memory", "internal", "memory"),
        ("no-face", "no-face", "no face in the photo"),
    ],
)
def test_failing_work_is_answered_and_harms_nothing(quick_server, order, code, words):
    before = quick_server.workers()
    talker = quick_server.talk()
    error = talker.final(talker.reconstruct(order, name="holiday.jpg")).body
    assert error.code == code
    assert words in error.problem
    assert "/home" not in error.problem
    assert "holiday" not in error.problem + error.remedy + quick_server.log
    assert _works(quick_server)
    assert quick_server.workers() == before


@pytest.mark.slow
def test_a_lost_device_replaces_the_worker(start_server):
    server = start_server()
    server.wait_ready()
    talker, before = server.talk(), server.workers()
    assert talker.final(talker.reconstruct("cuda")).body.code == "internal"
    assert _works(server)
    assert not set(server.workers()) & set(before)


def test_a_killed_worker_is_replaced_and_its_request_tried_again(start_server, tmp_path):
    server = start_server()
    server.wait_ready()
    talker, (victim,) = server.talk(), server.workers()
    request = talker.reconstruct(f"until {tmp_path / 'enough'}")
    talker.until_started(request)
    os.kill(victim, signal.SIGKILL)
    (tmp_path / "enough").touch()
    result = talker.final(request).body
    assert result.faces[0].document["pid"] != victim
    assert talker.ask(wire.Status()).worker_restarts == 1


@pytest.mark.slow
def test_a_photo_that_kills_workers_is_tried_twice_only(start_server):
    server = start_server()
    server.wait_ready()
    talker = server.talk()
    assert talker.final(talker.reconstruct("crash")).body.code == "worker-lost"
    assert _works(server)


def test_a_photo_is_kept_for_a_worker_that_still_loads(start_server):
    server = start_server("pipelines:load_slowly")
    talker = server.talk()
    assert talker.ask(wire.Hello()).workers_ready == 0
    assert isinstance(talker.final(talker.reconstruct()).body, wire.Result)


def test_garbage_and_half_open_connections_harm_nobody(quick_server):
    address = _port(quick_server)
    idle = [socket.create_connection(address) for _ in range(200)]
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00NULL" + bytes(300), bytes(5000)):
        with socket.create_connection(address) as connection:
            connection.sendall(garbage)
            assert _works(quick_server)
    for connection in idle:
        connection.close()
    assert _works(quick_server)


def test_messages_that_are_none_are_refused_one_by_one(quick_server):
    talker = quick_server.talk()
    for frames in ([b""], [b"{}"], [b"\xff\xfe"], [b"{"] * 20, [b'{"focus": 99, "type": "hello", "id": "a"}']):
        talker.socket.send_multipart(frames)
        assert talker.receive().body.code == "protocol"
    assert _works(quick_server)


def test_an_oversize_frame_closes_that_connection_only(start_server):
    server = start_server(limits={"frame_bytes": 2**20})
    server.wait_ready()
    other, flooder = server.talk(), server.talk()
    waiting = other.reconstruct("sleep 0.5")
    flooder.socket.send_multipart([b"{}", bytes(3 * 2**20)])
    assert isinstance(other.final(waiting).body, wire.Result)
    assert not flooder.socket.poll(300)
    assert _works(server)


def test_a_connection_without_curve_gets_nowhere(quick_server):
    context = zmq.Context()
    plain = context.socket(zmq.DEALER)
    plain.linger = 0
    plain.connect(quick_server.ready.address)
    plain.send_multipart(wire.pack(wire.Message("a", wire.Hello(), secret=quick_server.ready.secret)))
    assert not plain.poll(500)
    context.destroy(linger=0)
    assert _works(quick_server)


def test_a_client_that_never_reads_harms_nobody(quick_server):
    silent = quick_server.talk()
    silent.socket.rcvhwm = 1
    deaf = quick_server.talk()
    deaf.socket.close()
    for _ in range(8):
        silent.reconstruct("bytes 20000000", parts=["photo"])
    assert _works(quick_server)
    silent.close()
    assert _works(quick_server)


def test_a_second_server_lives_beside_the_first(quick_server, start_server):
    second = start_server()
    assert second.ready.address != quick_server.ready.address
    assert second.ready.secret != quick_server.ready.secret
    assert _works(second)
    mixed = Credentials(second.ready.address, second.ready.public_key, quick_server.ready.secret)
    assert second.talk(mixed).ask(wire.Hello()).code == "refused"
    assert _works(quick_server)


def test_known_keys_come_in_from_other_machines_until_they_are_revoked(start_server, tmp_path):
    folder = KeyFolder(tmp_path / "keys")
    key = folder.new("studio")
    stranger = KeyFolder(tmp_path / "elsewhere").new("stranger")
    server = start_server(bind=["tcp://0.0.0.0:0"], keys=str(folder.path))
    server.wait_ready()
    address = f"tcp://127.0.0.1:{server.port_for_others()}"
    friend = server.talk(Credentials(address, key["server_key"], "", key["public_key"], key["secret_key"]))
    assert not friend.ask(wire.Hello()).is_owner
    assert friend.ask(wire.Shutdown()).code == "refused"
    assert isinstance(friend.final(friend.reconstruct()).body, wire.Result)
    assert {report.pid for report in friend.ask(wire.Status()).workers} == {0}
    unknown = server.talk(Credentials(address, key["server_key"], server.ready.secret, stranger["public_key"], stranger["secret_key"]))
    unknown.send(wire.Hello())
    assert not unknown.socket.poll(500)
    folder.revoke("studio")
    assert friend.ask(wire.Hello()).code == "refused"
    assert _works(server)


def test_the_front_loads_nothing_slow(quick_server):
    memory_maps = psutil.Process(quick_server.process.pid).memory_maps()
    assert not [entry.path for entry in memory_maps if "/torch/" in entry.path or "/numpy/" in entry.path]


def test_handles_do_not_pile_up(quick_server):
    def handles() -> int:
        return psutil.Process(quick_server.process.pid).num_fds()

    assert _works(quick_server)
    before = handles()
    for _ in range(20):
        talker = quick_server.talk()
        talker.final(talker.reconstruct())
        talker.close()
    latest = time.monotonic() + 20
    while handles() > before + 2 and time.monotonic() < latest:
        time.sleep(0.1)
    assert handles() <= before + 2


def test_an_identity_that_a_client_chose_is_refused(quick_server):
    talker = quick_server.talk()
    talker.socket.disconnect(quick_server.ready.address)
    talker.socket.set(zmq.IDENTITY, b"somebody")
    talker.socket.connect(quick_server.ready.address)
    talker.send(wire.Hello())
    assert talker.receive().body.code == "protocol"


def test_a_burst_is_answered_whole(quick_server):
    talker = quick_server.talk()
    ids = [talker.send(wire.Ping()) for _ in range(500)]
    assert [talker.receive().id for _ in ids] == ids


def test_a_frame_of_the_published_size_is_taken(start_server):
    server = start_server(limits={"frame_bytes": 2**20})
    talker = server.talk()
    photo = wire.Array.of(b"faces 1".ljust(2**20))
    assert isinstance(talker.final(talker.send(wire.Reconstruct(parts=["geometry"]), {"photo": photo})).body, wire.Result)
    talker.send(wire.Reconstruct(), {"photo": wire.Array.of(bytes(2**20 + 1))})
    assert talker.receive().body.code == "protocol"
