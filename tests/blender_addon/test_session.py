"""Photos through a session to plans, with a real server process of its own that makes heads of a small model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from addon_backend.bench import HEADS, Bench, benches_in, make_bench
from blender_addon import wire
from blender_addon.errors import AddonError
from blender_addon.options import SceneOptions
from blender_addon.session.kept_models import MODEL_PARTS, KeptModels


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench whose backend makes heads; the tests leave it without jobs under way."""
    bench = make_bench(tmp_path_factory.mktemp("heads"), HEADS)
    yield bench
    bench.session.close()


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Benches of their own: `benches(pipeline, **settings of the server)`."""
    yield from benches_in(tmp_path)


@pytest.fixture(autouse=True)
def _forget_the_error(heads: Bench) -> None:
    heads.session.error = None


def under_way(bench: Bench) -> int:
    return sum(job.state in ("reading", "sent", "running", "planning") for job in bench.session.jobs)


def test_photo_becomes_a_plan(heads):
    job = heads.submit("sleep 0.3\nfaces 2", "Ein Föto mit Leerzeichen.jpg")
    assert heads.session.is_working
    assert (job.state, job.stage) == ("waiting", "Starting the backend")
    heads.until_ended(job)

    assert (job.state, job.error, job.fraction) == ("finished", None, 1.0)
    assert job.seconds > 0.3
    plan = heads.plans[job.number]
    assert [head.face_index for head in plan.heads] == [0, 1]
    assert plan.photo_path == str(job.photo)
    assert not heads.session.is_working
    assert heads.session.error is None


def test_states_stages_and_preview(heads):
    job = heads.submit("sleep 0.2")
    heads.until_ended(job)

    # The backend runs already, and may take the photo between two looks at the job.
    seen = [entry for entry in heads.stages[job.number] if entry[0] not in ("waiting", "sent")]
    assert list(dict.fromkeys(state for state, _ in seen)) == ["reading", "running", "planning", "finished"]
    assert {("reading", "Reading the photo"), ("running", "Fit"), ("planning", "Planning the scene"), ("finished", "Done")} <= set(seen)
    assert isinstance(job.preview, np.ndarray)
    assert (job.preview.dtype, job.preview.tolist()) == (np.uint8, np.arange(12).reshape(2, 2, 3).tolist())


def test_status_tells_what_the_backend_is(heads):
    job = heads.submit("sleep 60")
    heads.until_state(job, "running")
    heads.until(lambda: heads.session.status.methods != ())
    busy = heads.session.status
    heads.session.cancel(job)
    heads.until(lambda: heads.session.status.light == "ready")

    assert (busy.light, busy.text, busy.device, busy.methods, busy.is_ours) == (
        "busy",
        "Working on a photo",
        "cpu",
        ("fit", "network"),
        True,
    )
    assert busy.address.startswith("tcp://127.0.0.1:")
    assert busy.software.startswith("focus-backend")


def test_model_is_asked_for_once(heads):
    first = heads.submit(name="first.jpg")
    heads.until_ended(first)
    sent = heads.record_requests()
    second = heads.submit(name="second.jpg")
    heads.until_ended(second)

    assert sent[0].parts == ["geometry", "texture", "albedo", "masks", "photo"]
    keys = [heads.plans[job.number].heads[0].mesh.shape_keys for job in (first, second)]
    assert [key.name for key in keys[0]] == [key.name for key in keys[1]]
    assert len(keys[1]) > 52
    assert all(np.array_equal(one.offsets, other.offsets) for one, other in zip(*keys, strict=True))


def test_model_of_a_hash_that_the_welcome_did_not_tell_is_asked_for_again(heads, monkeypatch):
    heads.session.start_backend()
    heads.until(lambda: heads.session.status.methods != ())
    told, welcome = "a" * 64, heads.session._backend.welcome
    other = [dataclasses.replace(welcome.models[0], sha256=told)]
    monkeypatch.setattr(heads.session._backend, "welcome", dataclasses.replace(welcome, models=other))
    monkeypatch.setattr(heads.session, "_kept", KeptModels())
    heads.session._kept.keep(told, {name: wire.Array("uint8", (1,), b"0") for names in MODEL_PARTS.values() for name in names})
    sent = heads.record_requests()
    job = heads.submit()
    heads.until_ended(job)

    assert (job.state, job.error) == ("finished", None)
    assert [set(MODEL_PARTS) & set(body.parts) for body in sent] == [set(), {"model", "identity"}]


def test_one_bad_photo_of_four_costs_the_others_nothing(heads):
    good, bad, missing = heads.submit(name="good.jpg"), heads.submit("no-face", "bad.jpg"), heads.submit_file(Path("/nowhere/photo.jpg"))
    later = heads.submit(name="later.jpg")
    heads.until_ended(good, bad, missing, later)

    assert [job.state for job in (good, bad, missing, later)] == ["finished", "failed", "failed", "finished"]
    assert (bad.error.code, bad.error.problem, bad.error.remedy) == ("no-face", "no face in the photo", "give landmarks")
    assert (missing.error.code, missing.error.problem) == ("photo", "/nowhere/photo.jpg is missing")
    assert heads.session.error is bad.error


def test_many_photos_go_four_at_a_time_and_in_order(heads):
    jobs = [heads.submit("sleep 0.05", f"photo{number}.jpg") for number in range(26)]
    most = 0

    def is_done() -> bool:
        nonlocal most
        most = max(most, under_way(heads))
        return all(job.has_ended for job in jobs)

    heads.until(is_done)

    assert most == 4
    assert {job.state for job in jobs} == {"finished"}
    assert ("waiting", "Waiting, 25 ahead") in heads.stages[jobs[25].number]
    planned = list(heads.plans)[-26:]
    assert sorted(planned) == [job.number for job in jobs]
    # The four under way may overtake each other, for their files are read side by side.
    assert all(number - jobs[0].number < place + 4 for place, number in enumerate(planned))
    assert [job.number for job in heads.session.jobs] == [job.number for job in jobs[-20:]]


def test_more_than_the_server_takes_at_once_waits_here(benches):
    bench = benches(limits={"requests_in_flight": 2, "queue": 1})
    jobs = [bench.submit("sleep 0.1\nno-face", f"photo{number}.jpg") for number in range(5)]
    bench.until_ended(*jobs)

    assert {job.error.code for job in jobs} == {"no-face"}


def test_photo_is_sent_before_the_workers_are_ready(benches, tmp_path):
    gate = tmp_path / "gate"
    bench = benches("addon_backend.heads:load_heads_late", pipeline_config={"weights": str(gate)})
    job = bench.submit(scene=SceneOptions(identity=False))
    bench.until_state(job, "sent")
    loading = bench.session.status
    assert job.stage == "Starting the backend"
    gate.touch()
    bench.until_ended(job)
    bench.until(lambda: bench.session.status.methods != ())

    assert (loading.light, loading.methods) == ("starting", ())
    assert job.state == "finished"
    assert bench.session.status.device == "cpu"


def test_planning_that_fails_is_told(heads, monkeypatch):
    def fail(*_arguments: object) -> None:
        raise ValueError("shapes do not\nmatch")

    monkeypatch.setattr("blender_addon.session.session.plan_photo", fail)
    job = heads.submit()
    heads.until_ended(job)

    assert (job.state, job.error.code) == ("failed", "planning")
    assert job.error.problem.endswith("photo.jpg (shapes do not match)")
    assert heads.session.error is job.error


def test_planning_that_finds_the_result_wanting_is_told(heads, monkeypatch):
    def refuse(*_arguments: object) -> None:
        raise AddonError("the result lacks a camera", "update", "answer")

    monkeypatch.setattr("blender_addon.session.session.plan_photo", refuse)
    job = heads.submit()
    heads.until_ended(job)

    assert (job.error.code, job.error.problem) == ("answer", "the result lacks a camera")


def test_a_fault_of_ours_ends_the_jobs_and_not_the_timer(benches, monkeypatch):
    bench = benches()
    job = bench.submit("sleep 60")
    bench.until_state(job, "running")
    monkeypatch.setattr(bench.session._backend, "take_events", lambda: 1 / 0)
    bench.session.tick()
    monkeypatch.undo()
    again = bench.submit("no-face")
    bench.until_ended(again)

    assert (job.state, job.error.code) == ("failed", "internal")
    assert again.error.code == "no-face"
