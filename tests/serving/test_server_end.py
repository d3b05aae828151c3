"""How a server ends: orders, answers and leftovers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from focus_backend.serving import wire

PATIENCE = 30.0


def _assert_nothing_left(server) -> None:
    assert not server.ready_path.exists()
    assert not server.orphans()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_work_end_and_refuses_the_rest(start_server, tmp_path, number):
    server = start_server()
    server.wait_ready()
    talker = server.talk()
    running = talker.reconstruct(f"until {tmp_path / 'enough'}")
    talker.until_started(running)
    waiting = talker.reconstruct()
    assert isinstance(talker.receive().body, wire.Accepted | wire.Progress)
    while talker.ask(wire.Status()).queued != 1:
        time.sleep(0.02)
    server.send_signal(number)
    while "stopping" not in server.log:
        time.sleep(0.02)
    (tmp_path / "enough").touch()
    finals = {}
    while set(finals) != {running, waiting}:
        answer = talker.receive()
        if not isinstance(answer.body, wire.Accepted | wire.Progress):
            finals[answer.id] = answer.body
    assert isinstance(finals[running], wire.Result)
    assert finals[waiting].code == "closing"
    assert server.wait() == 0
    _assert_nothing_left(server)
    assert server.process.stdout.read().strip() == "slow modules:"


def test_no_new_work_is_taken_while_closing(start_server, tmp_path):
    server = start_server()
    server.wait_ready()
    talker = server.talk()
    running = talker.reconstruct(f"until {tmp_path / 'enough'}")
    talker.until_started(running)
    server.send_signal(signal.SIGTERM)
    while "stopping" not in server.log:
        time.sleep(0.02)
    assert not server.ready_path.exists()
    assert talker.final(talker.reconstruct()).body.code == "closing"
    (tmp_path / "enough").touch()
    assert server.wait() == 0


def test_work_beyond_the_grace_time_is_cancelled(start_server):
    server = start_server(grace_seconds=0.3)
    server.wait_ready()
    talker = server.talk()
    running = talker.reconstruct("hang")
    talker.until_started(running)
    server.send_signal(signal.SIGTERM)
    assert talker.final(running).body.code == "closing"
    assert server.wait() == 0
    _assert_nothing_left(server)


def test_the_second_signal_ends_at_once(start_server):
    server = start_server(grace_seconds=600)
    server.wait_ready()
    talker = server.talk()
    running = talker.reconstruct("sleep 600")
    talker.until_started(running)
    server.send_signal(signal.SIGTERM)
    while "stopping" not in server.log:
        time.sleep(0.02)
    server.send_signal(signal.SIGTERM)
    assert talker.final(running).body.code == "closing"
    assert server.wait() == 0
    _assert_nothing_left(server)


def test_the_owner_can_end_it(start_server):
    server = start_server()
    server.wait_ready()
    assert isinstance(server.talk().ask(wire.Shutdown()), wire.Done)
    assert server.wait() == 0
    _assert_nothing_left(server)


def test_it_ends_while_workers_still_load(start_server):
    server = start_server("pipelines:load_slowly", workers=2)
    assert len(server.workers()) <= 2
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    _assert_nothing_left(server)


def test_killed_it_leaves_no_worker(start_server):
    server = start_server(workers=2)
    server.wait_ready(2)
    talker = server.talk()
    talker.until_started(talker.reconstruct("sleep 600"))
    server.send_signal(signal.SIGKILL)
    server.wait()
    assert not server.orphans()
    server.ready_path.unlink()


def test_it_ends_with_its_parent(start_server):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent:
        server = start_server(parent_pid=parent.pid)
        server.wait_ready()
        assert server.process.poll() is None
        parent.kill()
        # Not waited for: a parent that is only listed still has ended, too.
        assert server.wait() == 0
    _assert_nothing_left(server)


def test_a_pipeline_that_cannot_be_loaded_ends_it_with_the_reason(spawn_server, tmp_path):
    process = spawn_server("pipelines:load_never")
    assert process.wait(PATIENCE) == 2
    log = (tmp_path / "server.log").read_text()
    assert "there are no such weights: give others with --weights" in log.splitlines()
    assert "Traceback" not in log
    assert not (tmp_path / "ready.json").exists()


def test_a_bug_in_loading_is_our_fault(spawn_server, tmp_path):
    assert spawn_server("pipelines:load_broken").wait(PATIENCE) == 1
    log = (tmp_path / "server.log").read_text()
    assert "ZeroDivisionError" in log
    assert not (tmp_path / "ready.json").exists()


def test_a_taken_address_is_said_in_one_line(quick_server, spawn_server, tmp_path):
    process = spawn_server(bind=[quick_server.ready.address])
    assert process.wait(PATIENCE) == 2
    assert f"address {quick_server.ready.address} is taken" in (tmp_path / "server.log").read_text()
    assert not (tmp_path / "ready.json").exists()


def test_other_machines_need_a_key_first(spawn_server, tmp_path):
    process = spawn_server(bind=["tcp://0.0.0.0:0"])
    assert process.wait(PATIENCE) == 2
    assert "focus-backend keys new" in (tmp_path / "server.log").read_text()


@pytest.mark.slow
def test_workers_that_die_while_they_load_end_it_with_the_reason(spawn_server, tmp_path):
    assert spawn_server("pipelines:load_dying").wait(PATIENCE) == 1
    log = (tmp_path / "server.log").read_text()
    # One place for a worker or several, none is started over and over.
    assert log.count("worker-started") <= 6
    assert "the workers die while they load: see the lines above in the log" in log.splitlines()
    assert not (tmp_path / "ready.json").exists()


def _starts_and_ends(command, **streams):
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **streams) as process:
        assert process.stdout.readline().strip().endswith("ready.json")
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        return process.wait(PATIENCE) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device stands for a full disk here")
def test_a_full_disk_under_the_log_stops_nothing(server_command, tmp_path):
    with open("/dev/full", "wb") as full:
        assert _starts_and_ends(server_command, stderr=full)
    assert not (tmp_path / "ready.json").exists()


def test_it_runs_without_standard_error(server_command, tmp_path):
    assert _starts_and_ends(["sh", "-c", 'exec "$@" 2>&-', "sh", *server_command])
    assert not (tmp_path / "ready.json").exists()


@pytest.mark.slow
def test_a_log_that_nobody_reads_stops_nothing(server_command, tmp_path):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while os.write(writing, bytes(4096)):
            pass
    except BlockingIOError:
        os.set_blocking(writing, True)
    try:
        assert _starts_and_ends(server_command, stderr=writing)
    finally:
        os.close(reading)
        os.close(writing)
    assert not (tmp_path / "ready.json").exists()


def test_an_error_of_the_announcer_leaves_nothing(tmp_path):
    script = """
import sys
from focus_backend.serving.config import ServerConfig
from focus_backend.serving.server import serve
def announce(path): raise RuntimeError("nobody listens")
sys.exit(serve(ServerConfig.model_validate_json(sys.argv[1]), announce=announce))
"""
    config = json.dumps({"workers": 1, "ready_file": str(tmp_path / "ready.json"), "keys": str(tmp_path)})
    done = subprocess.run([sys.executable, "-c", script, config], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert "nobody listens" in done.stderr
    assert not (tmp_path / "ready.json").exists()


@pytest.mark.slow
def test_the_port_is_free_again(start_server):
    server = start_server()
    host, port = server.ready.address.removeprefix("tcp://").split(":")
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=PATIENCE)
