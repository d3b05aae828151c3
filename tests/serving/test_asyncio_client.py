"""The asyncio client, with real servers in processes of their own."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focus_backend.errors import (
    CancelledError,
    ConnectionLostError,
    DeadlineError,
    FocusError,
    NoFaceError,
    PhotoError,
    RefusedError,
    ServerError,
)
from focus_backend.serving import wire
from focus_backend.serving.asyncio_client import AsyncClient, AsyncPendingResult
from focus_backend.serving.credentials import find_credentials
from serving.scripted_server import ScriptedServer, packed, result, welcome

# Guards against hanging only.
PATIENCE = 20.0


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """In an event loop of its own."""
    return asyncio.run(asyncio.wait_for(work, 2 * PATIENCE))


async def until(claim: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Waits until it holds."""
    latest = time.monotonic() + PATIENCE
    while not await claim():
        assert time.monotonic() < latest, "it never came true"
        await asyncio.sleep(0.01)


def running_at(client: AsyncClient, count: int) -> Callable[[], Coroutine[Any, Any, bool]]:
    """Whether the server works on so many requests."""

    async def claim() -> bool:
        return (await client.status()).running == count

    return claim


def test_all_verbs(quick_server, tmp_path: Path):
    path = tmp_path / "portrait.jpg"
    path.write_bytes(b"faces 2")

    async def work() -> None:
        async with await AsyncClient.connect(quick_server.ready_path) as client:
            assert (await client.hello()).workers == 2
            assert await client.ping() > 0
            assert "# TYPE" in (await client.status(prometheus=True)).prometheus
            for photo in (path, str(path), b"faces 2", bytearray(b"faces 2")):
                assert len((await client.reconstruct(photo, parts=["geometry"])).message.faces) == 2
            faces = await client.reconstruct(np.full((5, 4, 3), 32, np.uint8), parts=["geometry"])
            assert faces.numpy("face0/neutral").shape == (4, 3)
            with pytest.raises(NoFaceError):
                await client.reconstruct(b"no-face", parts=["geometry"])
            with pytest.raises(DeadlineError):
                await client.reconstruct(b"sleep 60", parts=["geometry"], deadline=0.2)
            with pytest.raises(PhotoError):
                await client.submit(tmp_path / "missing.jpg")

    run(work())


@pytest.mark.parametrize("is_coroutine", [False, True])
def test_progress_runs_in_the_loop(quick_server, is_coroutine: bool):
    seen: list[tuple[str, float, Any, int]] = []

    def plain(stage: str, fraction: float, preview: wire.Array | None) -> None:
        seen.append((stage, fraction, preview, threading.get_ident()))

    async def awaited(stage: str, fraction: float, preview: wire.Array | None) -> None:
        await asyncio.sleep(0)
        plain(stage, fraction, preview)

    async def work() -> None:
        async with AsyncClient(quick_server.credentials) as client:
            progress = awaited if is_coroutine else plain
            await client.reconstruct(b"sleep 0.4", parts=["geometry"], progress=progress, preview_side=8)

    run(work())
    fractions = [fraction for stage, fraction, *_ in seen if stage == "fit"]
    assert len(fractions) > 1
    assert fractions == sorted(fractions)
    assert {thread for *_, thread in seen} == {threading.get_ident()}
    assert next(preview.shape for _, _, preview, _ in seen if preview is not None) == (2, 2, 3)


def test_what_a_callback_raises_cancels_and_is_raised(quick_server):
    def progress(stage: str, *_: object) -> None:
        if stage == "fit":
            raise KeyError("a bug of the caller")

    async def work() -> None:
        async with AsyncClient(quick_server.credentials) as client:
            with pytest.raises(KeyError, match="a bug of the caller"):
                await client.reconstruct(b"sleep 60", parts=["geometry"], progress=progress)
            await until(running_at(client, 0))

    run(work())


def test_cancelling_the_task_cancels_at_the_server(quick_server):
    async def work() -> None:
        async with AsyncClient(quick_server.credentials) as client:
            task = asyncio.create_task(client.reconstruct(b"sleep 60", parts=["geometry"]))
            await until(running_at(client, 1))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(running_at(client, 0))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.reconstruct(b"sleep 60", parts=["geometry"]), 0.2)
            await until(running_at(client, 0))

    run(work())


def test_pending_results(quick_server, tmp_path):
    async def work() -> None:
        async with AsyncClient(quick_server.credentials) as client:
            orders = f"until {tmp_path / 'enough'}\nfaces 2".encode()
            pending: AsyncPendingResult = await client.submit(orders, parts=["geometry"])
            with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
                await pending.result(timeout=0.05)
            assert not pending.done()
            (tmp_path / "enough").touch()
            both = await asyncio.gather(pending.result(), pending.result(timeout=PATIENCE))
            assert [len(faces.message.faces) for faces in both] == [2, 2]
            assert pending.done()
            assert not pending.cancel()

            given_up = await client.submit(b"sleep 60", parts=["geometry"])
            await until(running_at(client, 1))
            assert given_up.cancel()
            with pytest.raises(CancelledError):
                await given_up.result()
            await until(running_at(client, 0))

    run(work())


def test_sixteen_tasks_share_a_client(quick_server):
    async def work() -> None:
        async with AsyncClient(quick_server.credentials) as client:

            async def one(number: int) -> int:
                orders = f"sleep 0.02\nfaces {1 + number % 5}".encode()
                return len((await client.reconstruct(orders, parts=["geometry"])).message.faces)

            for _ in range(3):
                assert await asyncio.gather(*map(one, range(16))) == [1 + number % 5 for number in range(16)]

    run(work())


def test_wrong_secret(quick_server):
    async def work() -> None:
        async with AsyncClient(replace(quick_server.credentials, secret="00" * 32)) as client:
            with pytest.raises(RefusedError):
                await client.reconstruct(b"faces 1")

    run(work())


def test_kill_of_the_server_then_a_restart_at_another_port(start_server):
    first = start_server()
    first.wait_ready()

    async def work() -> None:
        find = lambda: find_credentials(first.ready_path)  # noqa: E731
        async with AsyncClient(first.credentials, timeout=PATIENCE, find=find) as client:
            pending = [await client.submit(b"sleep 60", parts=["geometry"]) for _ in range(3)]
            again = await client.submit(b"faces 2", parts=["geometry"], retries=1)
            await until(running_at(client, 1))
            first.send_signal(signal.SIGKILL)
            for one in pending:
                with pytest.raises(ConnectionLostError, match="went away"):
                    await one.result(PATIENCE)
            await asyncio.to_thread(start_server, ready_file=str(first.ready_path))
            assert len((await again.result(PATIENCE)).message.faces) == 2
            assert (await client.hello()).is_owner

    run(work())


def test_shutdown(start_server):
    server = start_server()
    server.wait_ready()

    async def work() -> None:
        async with AsyncClient(server.credentials) as client:
            await client.shutdown(0.0)

    run(work())
    assert server.wait(PATIENCE) == 0


def test_nobody_there():
    with ScriptedServer() as server:
        credentials = server.credentials

    async def work() -> None:
        async with AsyncClient(credentials, timeout=0.4) as client:
            started = [client.hello(), client.reconstruct(b"photo"), client.status()]
            errors = await asyncio.gather(*started, return_exceptions=True)
            assert [type(error) for error in errors] == [ConnectionLostError] * 3
            assert "no server answers" in str(errors[0])

    run(work())


def test_limits_of_the_server():
    async def work(server: ScriptedServer) -> None:
        async with AsyncClient(server.credentials) as client:
            with pytest.raises(PhotoError, match="photo has"):
                await client.reconstruct(bytes(4097))

    with ScriptedServer(greeting=welcome(frame_bytes=4096)) as server:
        run(work(server))
        assert not server.heard_of(wire.Reconstruct)


def test_a_busy_loop_does_not_lose_the_server():
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        server.send(identity, packed(message, wire.Progress("fit", 0.5)))
        server.send(identity, packed(message, result()))

    async def work(server: ScriptedServer) -> None:
        async with AsyncClient(server.credentials, timeout=0.5) as client:
            pending = await client.submit(b"photo")
            time.sleep(1.2)
            assert (await pending.result()).message == result()

    with ScriptedServer(answer) as server:
        run(work(server))


def test_a_closed_client_refuses_and_its_requests_end():
    async def work(server: ScriptedServer) -> None:
        client = AsyncClient(server.credentials)
        pending = await client.submit(b"photo")
        await client.close()
        await client.close()
        with pytest.raises(CancelledError, match="closed"):
            await pending.result()
        with pytest.raises(ServerError, match="closed"):
            await client.ping()

    with ScriptedServer() as server:
        run(work(server))


def test_a_loop_that_ends_first_harms_nobody():
    async def work(server: ScriptedServer) -> AsyncClient:
        client = AsyncClient(server.credentials)
        await client.submit(b"photo")
        return client

    with ScriptedServer() as server:
        client = asyncio.run(work(server))
        # Ends the request, whose loop is gone.
        client._connection.close()
        with pytest.raises(FocusError):
            asyncio.run(client.ping())
