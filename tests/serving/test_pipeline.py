"""Requests through the pipeline: options, parts, previews and giving up, with quick parts and once with the real ones."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import PlainReconstructor
from focus_backend.errors import CancelledError, ConfigError, LandmarkError, NoFaceError, PhotoError
from focus_backend.export.bundle import reconstruction_files, with_texture_size
from focus_backend.landmarks.detector import FIVE_POINT_NAMES
from focus_backend.photo import read_photo
from focus_backend.reconstruction.reconstructor import Reconstructor
from focus_backend.serving import wire
from focus_backend.serving.config import LimitsConfig, PipelineConfig
from focus_backend.serving.photo_pipeline import PhotoPipeline, within
from focus_backend.serving.pipeline import Job, Pipeline, load_pipeline

LIMITS = LimitsConfig().published()
ASTRONAUT = Path(__file__).parents[2] / "docs" / "demo" / "astronaut.jpg"
POINTS = {name: [40.0 + 12 * place, 50.0 + 9 * place] for place, name in enumerate(FIVE_POINT_NAMES)}


class QuickReconstructor(PlainReconstructor):
    """Reconstructions at once; a photo's faces and failures come from its name. It reports as often as it is told to."""

    reports = 3

    def reconstruct_many(self, tasks):
        """Each photo by itself."""
        yield from ((index, self._outcome(task)) for index, task in enumerate(tasks))

    def _outcome(self, task):
        try:
            for step in range(self.reports):
                task.progress("fitting", step / self.reports, lambda: task.photo.pixels)
            return self.reconstruct(task.photo, landmarks=task.landmarks, max_faces=task.max_faces)
        except Exception as error:
            return error


class Desk:
    """Runs jobs and keeps what is told and delivered; job `leaves` gives up at its report number `at`."""

    def __init__(self, leaves: int = -1, at: int = 0) -> None:
        self.told: dict[int, list] = {}
        self.outcomes: dict[int, tuple] = {}
        self.order: list[int] = []
        self._leaves, self._at = leaves, at

    def run(self, pipeline, *jobs):
        pipeline.run(list(jobs), [self._watch(index) for index in range(len(jobs))], self._deliver)
        assert sorted(self.order) == list(range(len(jobs)))
        return self

    def _watch(self, index):
        told = self.told[index] = []

        def watch(stage, fraction, preview=None):
            told.append((stage, fraction, preview() if preview else None))
            if index == self._leaves and len(told) > self._at:
                raise CancelledError("given up")

        return watch

    def _deliver(self, index, outcome, arrays):
        self.order.append(index)
        self.outcomes[index] = outcome, arrays


@pytest.fixture
def quick(tiny_model) -> QuickReconstructor:
    return QuickReconstructor(tiny_model)


@pytest.fixture
def pipeline(quick) -> PhotoPipeline:
    return PhotoPipeline({(method, misfit): quick for method in ("refine", "fit") for misfit in (True, False)})


def picture(width=120, height=100) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1).astype(np.uint8)


def png(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def job(name="portrait.png", parts=("geometry",), data=None, limits=LIMITS, preview_side=0, **options) -> Job:
    request = wire.Reconstruct(name=name, parts=list(parts), preview_side=preview_side, options=wire.Options(**options))
    return Job(request, {"photo": wire.Array.of(data or png(picture()))}, limits)


def pixel_job(pixels, limits=LIMITS, **options) -> Job:
    return Job(wire.Reconstruct(options=wire.Options(**options)), {"pixels": wire.Array.of(np.ascontiguousarray(pixels))}, limits)


def array(found: wire.Array) -> np.ndarray:
    return np.frombuffer(found.data, found.dtype).reshape(found.shape)


def one(pipeline, *jobs):
    desk = Desk().run(pipeline, *jobs)
    return desk.outcomes[0]


def test_the_default_parts_are_what_the_reconstruction_holds(pipeline, quick):
    result, arrays = one(pipeline, job(parts=["geometry", "texture", "masks", "albedo", "rendering", "photo"]))
    (face,) = quick.reconstruct(quick_photo())
    assert array(arrays["face0/neutral"]) == pytest.approx(face.neutral_vertices.numpy())
    posed = face.model.decode_shape(face.shape, face.expression)
    assert array(arrays["face0/neutral"]) + array(arrays["face0/expression"]) == pytest.approx(posed.numpy(), abs=1e-3)
    for name, picture_of_face in (("texture", face.texture), ("albedo", face.albedo_texture), ("rendering", face.rendering)):
        assert np.array_equal(array(arrays[f"face0/{name}"]), picture_of_face)
    for name in ("face_mask", "outlier_mask"):
        assert np.array_equal(array(arrays[f"face0/{name}"]), getattr(face, name) * np.uint8(255))
    assert np.array_equal(array(arrays["photo"]), picture())
    assert {found.dtype for name, found in arrays.items() if name not in ("face0/neutral", "face0/expression")} == {"uint8"}
    assert result.faces[0].document["photo"]["name"] == "portrait.png"
    assert result.model == pipeline.info.models[0]
    assert wire.pack(wire.Message("1", result, arrays))


def quick_photo():
    return read_photo(png(picture()), name="portrait.png")


def test_model_and_identity_describe_the_face_model(pipeline, tiny_model):
    _, arrays = one(pipeline, job(parts=["model", "identity"]))
    assert np.array_equal(array(arrays["model/quads"]), tiny_model.quads.numpy())
    assert arrays["model/quads"].dtype == arrays["model/quad_uv"].dtype == "int32"
    assert np.array_equal(array(arrays["model/uv"]), tiny_model.uv.numpy())
    assert np.array_equal(array(arrays["model/quad_in_face"]), tiny_model.quad_in_face.numpy())
    full = tiny_model.expression_basis / tiny_model.expression_scale[:, None, None]
    assert array(arrays["model/expressions"]) == pytest.approx(full.numpy(), rel=1e-5)
    assert array(arrays["model/identity"]) == pytest.approx(tiny_model.shape_basis[:10].numpy())
    assert set(arrays) == {f"model/{name}" for name in ("quads", "quad_uv", "uv", "quad_in_face", "expressions", "identity")}


def test_files_are_those_of_a_local_run(pipeline, quick):
    _, arrays = one(pipeline, job(parts=["files"], texture_size=8))
    (face,) = quick.reconstruct(quick_photo())
    expected = reconstruction_files(with_texture_size(face, 8))
    assert {name: bytes(found.data) for name, found in arrays.items()} == {f"face0/files/{name}": data for name, data in expected.items()}


def test_faces_are_limited_by_the_request_and_by_the_server(pipeline):
    three = "three_faces.jpg"
    assert len(one(pipeline, job(three))[0].faces) == 3
    assert len(one(pipeline, job(three, faces=2))[0].faces) == 2
    limited = dataclasses.replace(LIMITS, faces=1)
    result, arrays = one(pipeline, job(three, limits=limited, faces=2))
    assert len(result.faces) == 1
    assert not any(name.startswith("face1/") for name in arrays)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"parts": ["geometry", "hair"]}, "hair.*geometry"),
        ({"method": "magic"}, "magic.*refine, fit"),
        ({"method": "network"}, "network.*weights.*refine, fit"),
        ({"faces": 0}, "0 faces"),
        ({"texture_size": 0}, "0 pixels"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_there_is(pipeline, quick, wrong, said):
    outcome, arrays = one(pipeline, job(**wrong))
    assert isinstance(outcome, ConfigError)
    assert arrays == {}
    with pytest.raises(ConfigError, match=said):
        raise outcome
    assert quick.seen == []


def test_the_limits_of_a_photo_hold(pipeline):
    for limits in ({"pixels": 100 * 120 - 1}, {"side": 119}, {"frame_bytes": 100}):
        limited = dataclasses.replace(LIMITS, **limits)
        assert isinstance(one(pipeline, job(limits=limited))[0], PhotoError), limits
        if "frame_bytes" not in limits:
            assert isinstance(one(pipeline, pixel_job(picture(), limited))[0], PhotoError), limits
    assert isinstance(one(pipeline, pixel_job(picture(40, 40)))[0], PhotoError)


def test_a_request_has_one_photo_of_the_right_kind(pipeline):
    grey = wire.Array.of(np.zeros((80, 80), np.uint8))
    floats = wire.Array.of(np.zeros((80, 80, 3), np.float32))
    good = wire.Array.of(picture())
    for arrays in ({}, {"pixels": grey}, {"pixels": floats}, {"photo": good}, {"photo": wire.Array.of(png(picture())), "pixels": good}):
        assert isinstance(one(pipeline, Job(wire.Reconstruct(), arrays, LIMITS))[0], PhotoError)


def test_pixels_are_copied_hashed_and_scaled_as_a_file_is(pipeline):
    pixels = picture()
    request = pixel_job(pixels)
    request = dataclasses.replace(request, request=dataclasses.replace(request.request, parts=["photo"]))
    result, arrays = one(pipeline, request)
    kept = array(arrays["photo"])
    assert np.array_equal(kept, pixels)
    assert result.faces[0].document["photo"]["sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert not np.shares_memory(kept, array(request.arrays["pixels"]))
    large = pixel_job(np.broadcast_to(np.uint8(90), (64, 5000, 3)))
    result, _ = one(pipeline, large)
    document = result.faces[0].document["photo"]
    assert (document["original_width"], document["width"]) == (5000, 4096)
    assert any("scaled" in warning for warning in result.faces[0].warnings)


def test_landmarks_of_a_request_are_checked_and_used(pipeline, quick):
    result, _ = one(pipeline, job(landmarks=wire.Landmarks(POINTS)))
    assert isinstance(result, wire.Result)
    assert quick.landmarks.names == FIVE_POINT_NAMES
    assert quick.landmarks.points[1].tolist() == POINTS["left_eye"]
    outside = POINTS | {"nose_tip": [500.0, 50.0]}
    for points in (outside, {"nose_tip": [1.0, 2.0]}, POINTS | {"tail": [1.0, 2.0]}, POINTS | {"nose_tip": [1.0]}):
        assert isinstance(one(pipeline, job(landmarks=wire.Landmarks(points)))[0], LandmarkError)


def test_one_photo_does_not_harm_another(pipeline):
    jobs = [job(), job("nobody.jpg"), job("crash.jpg"), job(data=b"no photo"), job(method="magic"), job("three_faces.jpg", method="fit")]
    desk = Desk().run(pipeline, *jobs)
    kinds = [type(desk.outcomes[index][0]) for index in range(len(jobs))]
    assert kinds == [wire.Result, NoFaceError, ZeroDivisionError, PhotoError, ConfigError, wire.Result]


def test_everyone_is_told_while_others_are_worked_on(pipeline):
    desk = Desk().run(pipeline, job(), job(), job("three_faces.jpg", method="fit"))
    for told in desk.told.values():
        fractions = [fraction for _, fraction, _ in told]
        assert fractions == sorted(fractions)
        assert 0 <= fractions[0] <= fractions[-1] <= 1
    # The last one hears of its own photo and of every report of the two before.
    assert len(desk.told[2]) > 2 * QuickReconstructor.reports


@pytest.mark.parametrize("at", range(0, 14, 2))
def test_a_job_can_leave_at_any_time(pipeline, at):
    alone = Desk().run(pipeline, job(), job(), job())
    last = len(alone.told[1])
    desk = Desk(leaves=1, at=at).run(pipeline, job(), job(), job())
    left = isinstance(desk.outcomes[1][0], CancelledError)
    assert left == (at < last)
    # Nobody is told after having left.
    assert len(desk.told[1]) == min(at + 1, last)
    assert isinstance(desk.outcomes[0][0], wire.Result)
    assert isinstance(desk.outcomes[2][0], wire.Result)


def test_a_job_that_leaves_while_it_waits_is_answered_at_once(pipeline):
    desk = Desk(leaves=2, at=4).run(pipeline, job(), job(), job())
    assert desk.order[0] == 2


def test_a_job_can_leave_while_its_files_are_made(pipeline):
    request = job(parts=["files"])
    steps = [stage for stage, _, _ in Desk().run(pipeline, request).told[0]]
    assert steps.count("packing the result") > len(("neutral.obj", "face.glb", "albedo.png", "texture.png", "report.jpg"))
    desk = Desk(leaves=0, at=steps.index("packing the result") + 4).run(pipeline, request)
    assert isinstance(desk.outcomes[0][0], CancelledError)


def test_previews_are_drawn_for_those_who_asked_and_no_larger(pipeline):
    silent, large = Desk().run(pipeline, job()).told[0], Desk().run(pipeline, job(preview_side=10_000)).told[0]
    assert all(preview is None for _, _, preview in silent)
    assert {preview.shape for _, _, preview in large if preview is not None} == {(100, 120, 3)}
    small = Desk().run(pipeline, job(preview_side=48)).told[0]
    assert {preview.shape for _, _, preview in small if preview is not None} == {(40, 48, 3)}


def test_pictures_are_scaled_down_and_never_up():
    assert within(picture(), 500).shape == (100, 120, 3)
    assert within(picture(500, 2), 50).shape == (1, 50, 3)


def test_a_method_that_is_not_known_or_has_no_weights_is_refused_when_loading():
    with pytest.raises(ConfigError, match="magic"):
        PhotoPipeline.load(PipelineConfig(method="magic"))


@pytest.mark.slow
def test_the_real_pipeline(brief_fit):
    """The shipped model and the fit: result, files of a local run, previews and giving up."""
    pipeline = load_pipeline(PipelineConfig(method="fit"))
    assert isinstance(pipeline, Pipeline)
    assert pipeline.info.methods[0] == "fit"
    pipeline.warm_up()
    data = ASTRONAUT.read_bytes()
    request = job("astronaut.jpg", ["files"], data, preview_side=64)
    desk = Desk().run(pipeline, request)
    result, arrays = desk.outcomes[0]
    files = {name.removeprefix("face0/files/"): bytes(found.data) for name, found in arrays.items()}
    (face,) = Reconstructor.load(method="fit").reconstruct(read_photo(data, name="astronaut.jpg"))
    expected = reconstruction_files(face)
    document, theirs = (json.loads(made.pop("result.json")) for made in (files, expected))
    assert files == expected
    assert document | {"timings": {}} == theirs | {"timings": {}}
    assert result.faces[0].document == document
    previews = [preview for _, _, preview in desk.told[0] if preview is not None]
    assert len(previews) > 5
    assert all(max(preview.shape) == 64 for preview in previews)
    for share in (0.1, 0.95):
        given_up = Desk(leaves=0, at=int(share * len(desk.told[0]))).run(pipeline, request)
        assert isinstance(given_up.outcomes[0][0], CancelledError)
