"""A worker process by itself, told by its standard input and its socket what a server would tell."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import zmq
from zmq.auth.thread import ThreadAuthenticator

from focus_backend.serving import wire, work
from focus_backend.serving.config import ServerConfig

PATIENCE = 20
_START = "import sys; sys.path.insert(0, sys.argv[1]); from focus_backend.serving.worker import main; main()"


class _Server:
    """A worker's other end."""

    def __init__(self, pipeline: str = "pipelines:load_quick", **settings) -> None:
        self.context = zmq.Context()
        self.authenticator = ThreadAuthenticator(self.context)
        self.authenticator.start()
        self.authenticator.configure_plain(passwords={"3": "t"})
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.plain_server = True
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, str(Path(__file__).parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        config = ServerConfig(**settings).model_dump(mode="json")
        order = {"address": f"tcp://127.0.0.1:{port}", "token": "t", "number": 3, "identity": "3-1", "pipeline": pipeline, "config": config}
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        self.answers: list[list[bytes]] = []

    def tell(self, *frames) -> None:
        self.socket.send_multipart([b"3-1", *frames])

    def run(self, *jobs: tuple[int, str, dict]) -> None:
        for number, orders, request in jobs:
            photo = {"photo": wire.Array.of(orders.encode())}
            self.tell(b"run", b"%d" % number, *wire.pack(wire.Message(f"id{number}", wire.Reconstruct(**request), photo)))
        self.tell(b"take", b" ".join(b"%d" % number for number, *_ in jobs))

    def until(self, kind: bytes, number: int | None = None) -> list[bytes]:
        """Keeps answers up to one of this kind, and gives it."""
        while True:
            frames = self._next()
            if frames[0] == kind and (number is None or frames[1] == b"%d" % number):
                return frames

    def until_final(self, number: int) -> wire.Message:
        """The answer that ends a job, which may have come already."""
        read = 0
        while True:
            if read == len(self.answers):
                self._next()
            frames = self.answers[read]
            read += 1
            if frames[0] in (b"result", b"error") and frames[1] == b"%d" % number:
                return wire.unpack(frames[2:], wire.ANSWERS, wire.ANSWER_LIMITS)

    def _next(self) -> list[bytes]:
        if not self.socket.poll(1000 * PATIENCE):
            raise TimeoutError(self.answers)
        identity, *frames = self.socket.recv_multipart()
        assert identity == b"3-1"
        self.answers.append(frames)
        return self.answers[-1]

    def progress(self, number: int) -> list[wire.Message]:
        chosen = [frames for frames in self.answers if frames[0] == b"progress" and frames[1] == b"%d" % number]
        return [wire.unpack(frames[2:], wire.ANSWERS, wire.ANSWER_LIMITS) for frames in chosen]

    def close(self) -> str:
        self.process.kill()
        output, _ = self.process.communicate()
        self.authenticator.stop()
        self.context.destroy(linger=0)
        return output.decode()


@pytest.fixture
def server():
    server = _Server()
    try:
        server.until(b"ready")
        yield server
    finally:
        server.close()


def test_it_tells_what_it_holds_and_that_it_lives(server):
    ready = json.loads(next(frames for frames in server.answers if frames[0] == b"ready")[1])
    assert ready["models"] == [{"name": "quick", "sha256": "0" * 64, "vertices": 4, "expressions": ["jawOpen"]}]
    assert (ready["methods"], ready["parts"], ready["device"]) == (["fit", "network"], ["geometry", "photo"], "cpu")
    assert json.loads(server.until(b"beat")[1])["memory_bytes"] > 2**20


def test_jobs_taken_together_run_together_and_keep_their_ids(server):
    server.run((17, "faces 2", {}), (18, "no-face", {}), (19, "faces 1", {}))
    first, second, third = (server.until_final(number) for number in (17, 18, 19))
    assert (first.id, second.id, third.id) == ("id17", "id18", "id19")
    assert [face.document["batch"] for face in first.body.faces] == [3, 3]
    assert second.body.code == "no-face"


def test_progress_comes_not_too_often_and_only_when_wanted(server):
    server.run((1, "sleep 0.6", {"preview_side": 64}))
    server.until_final(1)
    fit = [message for message in server.progress(1) if message.body.stage == "fit"]
    assert 2 <= len(fit) <= 13
    assert 1 <= len([message for message in fit if message.arrays]) <= 4
    server.run((2, "sleep 0.2", {"progress": False}))
    server.until_final(2)
    assert not server.progress(2)


def test_cancelling_ends_one_job_of_a_batch(server):
    server.run((1, "sleep 60", {}), (2, "sleep 60", {}), (3, "faces 1", {}))
    server.until(b"progress", 1)
    server.tell(b"cancel", b"2")
    server.tell(b"cancel", b"99")
    server.tell(b"cancel", b"1")
    assert server.until_final(1).body.code == "cancelled"
    assert server.until_final(2).body.code == "cancelled"
    assert isinstance(server.until_final(3).body, wire.Result)


def test_an_answer_that_no_client_takes_is_an_error(server):
    server.run((1, "bytes 300000000", {"parts": ["photo"]}))
    error = server.until_final(1).body
    assert error.code == "protocol"
    assert "smaller" in error.remedy


def test_signals_for_the_whole_group_do_not_end_it(server):
    for number in (signal.SIGINT, signal.SIGTERM):
        server.process.send_signal(number)
    server.run((1, "faces 1", {}))
    assert isinstance(server.until_final(1).body, wire.Result)


def test_it_ends_when_told_to(server):
    server.tell(b"stop")
    assert server.process.wait(PATIENCE) == 0


def test_it_ends_with_its_server_in_the_middle_of_work(server):
    server.run((1, "hang", {}))
    server.until(b"progress", 1)
    server.process.stdin.close()
    assert server.process.wait(PATIENCE) == 0
    server.process.stdin = None


@pytest.mark.parametrize(("pipeline", "code"), [("pipelines:load_never", "config"), ("pipelines:load_broken", "internal")])
def test_it_tells_why_it_cannot_load_and_ends(pipeline, code):
    server = _Server(pipeline)
    try:
        assert json.loads(server.until(b"failed")[1])["code"] == code
        assert server.process.wait(PATIENCE) == 0
    finally:
        output = server.close()
    assert ("ZeroDivisionError: a bug at pipelines.py:" in output) == (code == "internal")
    assert "Traceback" not in output


def test_failures_are_reported_without_what_they_say_of_the_photo(capfd):
    try:
        raise ValueError("cannot read holiday.jpg\nat all")
    except ValueError as error:
        work.report_failure(error)
    line = capfd.readouterr().err
    assert line.startswith("ValueError at test_worker.py:")
    assert "holiday" not in line
    assert line.count("\n") == 1
