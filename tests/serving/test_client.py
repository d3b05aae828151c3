"""The synchronous client, with real servers in processes of their own, and with scripted ones for what those never do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zmq

from focus_backend.errors import (
    CancelledError,
    ConfigError,
    ConnectionLostError,
    DeadlineError,
    FocusError,
    NoFaceError,
    PhotoError,
    ProtocolError,
    RefusedError,
    ServerError,
)
from focus_backend.serving import wire
from focus_backend.serving.client import Client, PendingResult, ReconstructionResult
from focus_backend.serving.credentials import Credentials, find_credentials
from focus_backend.serving.keys import KeyFolder
from serving.scripted_server import ScriptedServer, packed, result, welcome

# Guards against hanging only.
PATIENCE = 20.0


def until(claim: Callable[[], Any]) -> None:
    """Waits until it holds."""
    latest = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < latest, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def client(quick_server):
    """A client of the file's server."""
    with Client(quick_server.credentials) as client:
        yield client


def find_of(server: Any) -> Callable[[], Credentials]:
    """Reads the ready file again."""
    return lambda: find_credentials(server.ready_path)


# With a real server


def test_connect_by_ready_file(quick_server):
    with Client.connect(quick_server.ready_path) as client:
        told = client.hello()
        assert told.is_owner
        assert told.workers == 2
        assert [model.name for model in told.models] == ["quick"]
        assert 0 < client.ping() < PATIENCE
        report = client.status(prometheus=True)
        assert len(report.workers) == 2
        assert "# TYPE" in report.prometheus
        assert not client.status().prometheus


def test_reconstruct_gives_arrays_as_views(client):
    faces = client.reconstruct(b"faces 2\nbytes 300000", parts=["geometry"])
    assert [face.index for face in faces.message.faces] == [0, 1]
    assert faces.message.parts == ["geometry"]
    neutral = faces.numpy("face1/neutral")
    assert neutral.shape == (4, 3)
    assert neutral.dtype == np.float32
    assert (neutral == 1).all()
    assert not neutral.flags.writeable
    assert isinstance(faces.arrays["photo"].data, memoryview)
    assert faces.numpy("photo").sum() == 7 * 300000
    with pytest.raises(ServerError, match="no array 'face9/neutral'"):
        faces.numpy("face9/neutral")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: array("B", data), lambda data: np.frombuffer(data, np.uint8)])
def test_photos_as_any_buffer(client, kind: Callable[[bytes], Any]):
    assert len(client.reconstruct(kind(b"faces 3"), parts=["geometry"]).message.faces) == 3


def test_photos_as_files_and_pixels(client, tmp_path: Path):
    path = tmp_path / "portrait.jpg"
    path.write_bytes(b"faces 2")
    assert len(client.reconstruct(path, parts=["geometry"]).message.faces) == 2
    assert len(client.reconstruct(str(path), parts=["geometry"]).message.faces) == 2
    assert len(client.reconstruct(np.full((5, 4, 3), 32, np.uint8), parts=["geometry"]).message.faces) == 1


def test_progress_runs_in_the_waiting_thread_and_ends_before_the_result(client):
    seen: list[tuple[str, float, wire.Array | None, int]] = []

    def progress(stage: str, fraction: float, preview: wire.Array | None) -> None:
        seen.append((stage, fraction, preview, threading.get_ident()))

    client.reconstruct(b"sleep 0.4", parts=["geometry"], progress=progress, preview_side=8)
    fractions = [fraction for stage, fraction, *_ in seen if stage == "fit"]
    assert len(fractions) > 1
    assert fractions == sorted(fractions)
    assert {thread for *_, thread in seen} == {threading.get_ident()}
    previews = [preview for _, _, preview, _ in seen if preview is not None]
    assert previews
    assert previews[0].shape == (2, 2, 3)


def test_a_slow_callback_blocks_nobody_else(client):
    is_in_callback, may_go_on = threading.Event(), threading.Event()

    def progress(*_: object) -> None:
        is_in_callback.set()
        assert may_go_on.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.reconstruct, b"sleep 0.1", parts=["geometry"], progress=progress)
        assert is_in_callback.wait(PATIENCE)
        assert client.reconstruct(b"faces 1", parts=["geometry"])
        may_go_on.set()
        assert slow.result(PATIENCE).message.faces


def test_what_a_callback_raises_cancels_and_is_raised(client):
    before = client.status().failed.get("cancelled", 0)

    def progress(stage: str, *_: object) -> None:
        if stage == "fit":
            raise KeyError("a bug of the caller")

    with pytest.raises(KeyError, match="a bug of the caller"):
        client.reconstruct(b"sleep 60", parts=["geometry"], progress=progress)
    until(lambda: client.status().failed.get("cancelled", 0) == before + 1 and client.status().running == 0)


def test_what_a_callback_raises_ends_a_pending_result(client):
    def progress(*_: object) -> None:
        raise KeyError("a bug of the caller")

    pending = client.submit(b"sleep 60", parts=["geometry"], progress=progress)
    with pytest.raises(KeyError):
        pending.result(PATIENCE)
    assert pending.done()
    with pytest.raises(CancelledError):
        pending.result()
    until(lambda: client.status().running == 0)


def test_cancel_ends_at_once_and_frees_the_worker(client):
    pending = client.submit(b"sleep 60", parts=["geometry"])
    until(lambda: client.status().running == 1)
    assert not pending.done()
    assert pending.cancel()
    assert pending.done()
    assert not pending.cancel()
    with pytest.raises(CancelledError):
        pending.result()
    until(lambda: client.status().running == 0)


def test_result_with_a_timeout_goes_on(client, tmp_path: Path):
    pending = client.submit(f"until {tmp_path / 'enough'}\nfaces 2".encode(), parts=["geometry"])
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        pending.result(timeout=0.05)
    (tmp_path / "enough").touch()
    assert len(pending.result(timeout=PATIENCE).message.faces) == 2
    assert pending.done()


def test_a_deadline_is_kept(client):
    with pytest.raises(DeadlineError):
        client.reconstruct(b"sleep 60", parts=["geometry"], deadline=0.3)


def test_errors_of_the_server_keep_their_kind_and_lines(client):
    with pytest.raises(NoFaceError, match="no face in the photo: give landmarks"):
        client.reconstruct(b"no-face", parts=["geometry"])
    with pytest.raises(ConfigError, match="nothing-such"):
        client.reconstruct(b"faces 1", parts=["nothing-such"])
    assert client.ping() > 0


def test_sixteen_threads_share_a_client(client):
    def one(number: int) -> int:
        return len(client.reconstruct(f"sleep 0.02\nfaces {1 + number % 5}".encode(), parts=["geometry"]).message.faces)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(48), timeout=PATIENCE)) == [1 + number % 5 for number in range(48)]


def test_wrong_secret_and_wrong_server_key(quick_server):
    for wrong in (replace(quick_server.credentials, secret="00" * 32), replace(quick_server.credentials, secret="")):
        with Client(wrong) as client:
            for _ in range(2):
                with pytest.raises(RefusedError):
                    client.hello()
    stranger = replace(quick_server.credentials, server_key=zmq.curve_keypair()[0].decode())
    with Client(stranger, timeout=PATIENCE) as client, pytest.raises(RefusedError, match="another key than expected"):
        client.hello()


def test_kill_of_the_server_then_a_restart_at_another_port(start_server):
    first = start_server()
    first.wait_ready()
    with Client(first.credentials, timeout=PATIENCE, find=find_of(first)) as client:
        pending = [client.submit(b"sleep 60", parts=["geometry"]) for _ in range(5)]
        until(lambda: client.status().running == 1)
        first.send_signal(signal.SIGKILL)
        for one in pending:
            with pytest.raises(ConnectionLostError, match="went away"):
                one.result(PATIENCE)
        with pytest.raises(FocusError):
            client.ping()
        second = start_server(ready_file=str(first.ready_path))
        assert second.ready.address != first.ready.address
        assert client.hello().is_owner
        assert client.reconstruct(b"faces 2", parts=["geometry"]).message.faces


def test_retries_send_it_again_to_the_restarted_server(start_server, tmp_path: Path):
    first = start_server()
    first.wait_ready()
    with Client(first.credentials, timeout=PATIENCE, find=find_of(first)) as client:
        again = client.submit(f"until {tmp_path / 'enough'}\nfaces 2".encode(), parts=["geometry"], retries=1)
        once = client.submit(b"sleep 60", parts=["geometry"])
        until(lambda: client.status().running == 1)
        first.send_signal(signal.SIGKILL)
        with pytest.raises(ConnectionLostError):
            once.result(PATIENCE)
        (tmp_path / "enough").touch()
        start_server(ready_file=str(first.ready_path))
        assert len(again.result(PATIENCE).message.faces) == 2


def test_shutdown_is_answered_before_the_server_goes(start_server):
    server = start_server()
    server.wait_ready()
    with Client(server.credentials) as client:
        client.shutdown(0.0)
        assert server.wait(PATIENCE) == 0


_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from focus_backend.serving.client import Client
with Client.connect(Path(sys.argv[1])) as client:
    try:
        client.reconstruct(b"sleep 60", parts=["geometry"], progress=lambda *_: print("started", flush=True))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_cancels_at_the_server(quick_server, client):
    command = [sys.executable, "-c", _CTRL_C, str(quick_server.ready_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().splitlines()[-1] == "interrupted"
        assert process.wait(PATIENCE) == 0
    # Counted as cancelled, or not at all where the end of the connection came first.
    until(lambda: client.status().running == 0)


def test_closing_cancels_at_the_server(quick_server, client):
    with Client(quick_server.credentials) as other:
        pending = other.submit(b"sleep 60", parts=["geometry"])
        until(lambda: client.status().running == 1)
    with pytest.raises(CancelledError, match="closed"):
        pending.result()
    until(lambda: client.status().running == 0)
    with pytest.raises(ServerError, match="this client was closed"):
        other.ping()
    other.close()


def test_a_forgotten_client_ends_its_thread(quick_server):
    client = Client(quick_server.credentials)
    client.ping()
    thread = next(thread for thread in threading.enumerate() if thread is client._connection._thread)
    del client
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_request_keeps_its_forgotten_client(quick_server):
    assert Client(quick_server.credentials).submit(b"sleep 0.1\nfaces 2", parts=["geometry"]).result(PATIENCE).message.faces


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes can be forked")
def test_a_client_refuses_to_work_after_a_fork(client):
    client.ping()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            client.ping()
        except ServerError as error:
            client.close()
            code = 0 if "forked" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert client.ping() > 0


def test_a_key_that_is_not_known_or_was_revoked(start_server, tmp_path: Path):
    address = next(
        (a.address for n in psutil.net_if_addrs().values() for a in n if a.family == socket.AF_INET and a.address[:4] != "127."), ""
    )
    if not address:
        pytest.skip("this machine has no address but loopback")
    keys = KeyFolder(tmp_path / "keys")
    known = keys.new("anna")
    server = start_server(bind=["tcp://127.0.0.1:0", f"tcp://{address}:{free_port(address)}"], keys=str(keys.path))
    server.wait_ready()
    remote = server.config.bind[1]
    right = Credentials(remote, known["server_key"], public_key=known["public_key"], secret_key=known["secret_key"])
    public, secret = (part.decode() for part in zmq.curve_keypair())
    with Client(replace(right, public_key=public, secret_key=secret)) as client, pytest.raises(RefusedError, match="wrong or revoked key"):
        client.hello()
    with Client(right) as client:
        assert not client.hello().is_owner
        assert client.reconstruct(b"faces 2", parts=["geometry"])
        with pytest.raises(RefusedError):
            client.shutdown()
        keys.revoke("anna")
        with pytest.raises(RefusedError):
            client.reconstruct(b"faces 2", parts=["geometry"])
    with Client(right) as client, pytest.raises(RefusedError, match="wrong or revoked key"):
        client.hello()


def free_port(address: str) -> int:
    """One that was free just now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def handles() -> tuple[int, int]:
    """Open files and threads of this process."""
    process = psutil.Process()
    return process.num_fds(), process.num_threads()


@pytest.mark.slow
def test_a_thousand_clients_leave_nothing_behind(quick_server):
    def one(is_used: bool) -> None:
        with Client(quick_server.credentials) as client:
            if is_used:
                client.ping()

    one(True)
    before = handles()
    for number in range(1000):
        one(number % 4 == 0)
    # The kernel counts a thread for a moment after it was joined.
    until(lambda: all(now <= then for now, then in zip(handles(), before, strict=True)))


# With scripted servers


def test_nobody_answers_at_a_free_port():
    address = f"tcp://127.0.0.1:{free_port('127.0.0.1')}"
    credentials = Credentials(address, zmq.curve_keypair()[0].decode(), secret="ab")
    with Client(credentials, timeout=0.5) as client, pytest.raises(ConnectionLostError, match=f"no server answers at {address}"):
        client.hello()


def test_something_that_is_no_server_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        credentials = Credentials(f"tcp://127.0.0.1:{mute.getsockname()[1]}", zmq.curve_keypair()[0].decode())
        with Client(credentials, timeout=0.5) as client, pytest.raises(ConnectionLostError, match="no server answers"):
            client.hello()


@pytest.mark.parametrize("address", ["tcp://", "nonsense", "tcp://127.0.0.1:99999999", "tcp://no such host:1"])
def test_addresses_that_are_none(address: str):
    with Client(Credentials(address, zmq.curve_keypair()[0].decode()), timeout=0.3) as client, pytest.raises(ServerError):
        client.hello()


def test_keys_that_are_none():
    with Client(Credentials("tcp://127.0.0.1:1", "no key")) as client, pytest.raises(RefusedError, match="no valid keys"):
        client.hello()


def test_a_server_that_falls_silent_is_lost():
    with ScriptedServer(pongs=False) as server, Client(server.credentials, timeout=0.5) as client:
        client.hello()
        pending = [client.submit(b"photo") for _ in range(3)]
        for one in pending:
            with pytest.raises(ConnectionLostError, match=r"has not answered for 0\.5 s"):
                one.result(PATIENCE)
        assert client.hello().software == "scripted 1"
        assert len(server.heard_of(wire.Hello)) >= 4


def test_garbage_ends_the_requests_and_the_next_call_connects_again():
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        server.send(identity, [b"\x00garbage", b"x" * 100])

    with ScriptedServer(answer) as server, Client(server.credentials) as client:
        with pytest.raises(ProtocolError, match="cannot be read"):
            client.status()
        assert client.ping() > 0


def test_a_server_of_another_version():
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        frames = packed(message, welcome())
        server.send(identity, [bytes(frames[0]).replace(b'"focus":1', b'"focus":2')])

    with ScriptedServer(answer) as server, Client(server.credentials) as client:
        with pytest.raises(ProtocolError, match="speaks another version: protocol 2"):
            client.status()
        server.greeting = wire.Error("protocol", "protocol 1 is not spoken here, but 2", "update")
        with pytest.raises(ProtocolError, match="not spoken here"):
            client.hello()


def test_answers_for_strangers_and_second_finals_are_ignored():
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        server.send(identity, wire.pack(wire.Message("stranger", result("wrong"))))
        server.send(identity, packed(message, wire.Progress("fit", 0.5)))
        server.send(identity, packed(message, result("right")))
        server.send(identity, packed(message, result("wrong")))
        server.send(identity, packed(message, wire.Error("internal", "wrong")))

    with ScriptedServer(answer) as server, Client(server.credentials) as client:
        for _ in range(3):
            assert client.reconstruct(b"photo").message == result("right")


def test_too_large_a_photo_never_leaves():
    with ScriptedServer(greeting=welcome(frame_bytes=4096, side=64)) as server, Client(server.credentials) as client:
        with pytest.raises(PhotoError, match=r"holiday\.jpg has"):
            client.reconstruct(bytes(4097), name="holiday.jpg")
        with pytest.raises(PhotoError, match="65 x 2 pixels"):
            client.reconstruct(np.zeros((2, 65, 3), np.uint8))
        assert client.ping() > 0
        assert not server.heard_of(wire.Reconstruct)


def test_too_large_a_file_is_not_even_read(tmp_path: Path):
    path = tmp_path / "holiday.jpg"
    with path.open("wb") as sparse:
        sparse.truncate(2**40)
    with ScriptedServer() as server, Client(server.credentials) as client, pytest.raises(PhotoError, match=r"holiday\.jpg has"):
        client.submit(path)


def test_photos_that_are_none(tmp_path: Path):
    (tmp_path / "empty.jpg").touch()
    wrong = [tmp_path, tmp_path / "missing.jpg", tmp_path / "empty.jpg", "a\0b.jpg", b"", 3, None, np.zeros((2, 2, 4), np.uint8)]
    wrong += [np.zeros((2, 2, 3), np.float32), np.zeros((0, 2, 3), np.uint8)]
    with ScriptedServer() as server, Client(server.credentials) as client:
        for photo in wrong:
            with pytest.raises(PhotoError) as raised:
                client.submit(photo)
            assert "\n" not in str(raised.value)


def test_a_bgr_picture_may_be_turned_round():
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        server.send(identity, packed(message, result(bytes(message.arrays["pixels"].data).hex())))

    with ScriptedServer(answer) as server, Client(server.credentials) as client:
        bgr = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
        answered = client.reconstruct(bgr[..., ::-1])
        assert answered.message.faces[0].warnings == ["0201000504030807060b0a09"]


def test_pixels_may_be_written_to_once_they_were_submitted():
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        server.send(identity, packed(message, result(str(sum(message.arrays["pixels"].data)))))

    with ScriptedServer(answer) as server, Client(server.credentials) as client:
        pixels = np.ones((300, 300, 3), np.uint8)
        pending = client.submit(pixels)
        pixels[:] = 2
        assert pending.result(PATIENCE).message.faces[0].warnings == ["270000"]


def test_stages_that_nobody_watched_are_told_when_somebody_waits():
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        for number in range(200):
            server.send(identity, packed(message, wire.Progress("fit", number / 200)))
        server.send(identity, packed(message, wire.Progress("texture", 0.5)))
        server.send(identity, packed(message, result()))

    seen: list[tuple[str, float]] = []
    with ScriptedServer(answer) as server, Client(server.credentials) as client:
        pending: PendingResult = client.submit(b"photo", progress=lambda stage, fraction, preview: seen.append((stage, fraction)))
        until(pending.done)
        assert seen == []
        pending.result()
    assert seen == [("fit", 199 / 200), ("texture", 0.5)]


def test_a_lost_server_that_is_not_found_again_ends_retries():
    def gone() -> Credentials:
        raise ServerError("no server of yours is running", "start one")

    server = ScriptedServer()
    with Client(server.credentials, timeout=1.0, find=gone) as client:
        client.hello()
        pending = client.submit(b"photo", retries=3)
        until(lambda: server.heard_of(wire.Reconstruct))
        server.close()
        with pytest.raises(ServerError, match="no server of yours"):
            pending.result(PATIENCE)


def test_a_retry_keeps_its_id():
    servers = [ScriptedServer(), ScriptedServer(lambda server, identity, message: server.send(identity, packed(message, result())))]
    with Client(servers[0].credentials, find=lambda: servers[1].credentials) as client:
        pending = client.submit(b"photo", retries=1)
        until(lambda: servers[0].heard_of(wire.Reconstruct))
        servers[0].close()
        assert pending.result(PATIENCE).message == result()
        assert servers[1].heard_of(wire.Reconstruct)[0].id == servers[0].heard_of(wire.Reconstruct)[0].id == pending.id
        assert bytes(servers[1].heard_of(wire.Reconstruct)[0].arrays["photo"].data) == b"photo"
    servers[1].close()


def test_a_server_that_moves_while_it_is_called_is_found():
    with ScriptedServer() as gone:
        stale = gone.credentials
    with ScriptedServer() as server:
        known = [stale, stale]
        with Client(stale, timeout=PATIENCE, find=lambda: known.pop() if known else server.credentials) as client:
            assert client.hello() == welcome()


def test_cancel_during_the_search_for_a_lost_server():
    def gone() -> Credentials:
        raise ServerError("no server of yours is running", "start one")

    server = ScriptedServer()
    with Client(server.credentials, timeout=PATIENCE, find=gone) as client:
        pending = client.submit(b"photo", retries=1)
        until(lambda: server.heard_of(wire.Reconstruct))
        server.close()
        until(lambda: client._connection._session is None)
        assert pending.cancel()
        with pytest.raises(CancelledError):
            pending.result()


def test_many_threads_while_the_server_comes_and_goes():
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        server.send(identity, packed(message, result()))

    servers = [ScriptedServer(answer)]
    outcomes: list[str] = []
    is_over = threading.Event()

    def outcome(client: Client) -> str:
        try:
            client.reconstruct(b"photo")
        except ConnectionLostError:
            return "lost"
        return "answered"

    def ask(client: Client) -> None:
        while not is_over.is_set():
            outcomes.append(outcome(client))

    with Client(servers[0].credentials, timeout=PATIENCE, find=lambda: servers[-1].credentials) as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            count = outcomes.count("answered")
            until(lambda count=count: outcomes.count("answered") > count + 20)
            servers.append(ScriptedServer(answer))
            servers[-2].close()
        is_over.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)
    servers[-1].close()


def test_files_of_a_result_cannot_lead_out_of_a_folder():
    def files(name: str) -> ReconstructionResult:
        return ReconstructionResult(
            result(), {f"face0/files/{name}": wire.Array("uint8", (2,), b"hi"), "face1/files/x": wire.Array("uint8", (0,), b"")}
        )

    assert files("neutral.obj").files() == {"neutral.obj": b"hi"}
    assert files("neutral.obj").files(1) == {"x": b""}
    for name in ("../evil", "a/b", ".hidden", ".."):
        with pytest.raises(ProtocolError, match="do not trust it"):
            files(name).files()


_LIGHT = """
import sys
import focus_backend.serving.client, focus_backend.serving.asyncio_client
print(*(name for name in ("torch", "numpy", "scipy", "PIL", "pydantic") if name in sys.modules))
"""


def test_clients_start_without_anything_slow():
    assert subprocess.run([sys.executable, "-c", _LIGHT], capture_output=True, text=True, check=True).stdout.strip() == ""
