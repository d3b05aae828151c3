"""MediaPipe's networks as two plain calls: find faces in a picture, place the mesh in a crop. Works on files of the wheel."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from focus_backend.errors import MissingDependencyError
from focus_backend.landmarks.bare_package import import_bare

CROP_PIXELS = 192
# MediaPipe's own face-mesh subgraph hides the presence score and insists on its short-range face finder; this one has neither.
_MESH_GRAPH = """
input_stream: "IMAGE:image"
output_stream: "LANDMARKS:landmarks"
output_stream: "SCORE:score"
node {
  calculator: "ImageToTensorCalculator"
  input_stream: "IMAGE:image"
  output_stream: "TENSORS:input"
  options { [mediapipe.ImageToTensorCalculatorOptions.ext] {
    output_tensor_width: 192 output_tensor_height: 192 output_tensor_float_range { min: 0.0 max: 1.0 } } }
}
node { calculator: "TfLiteCustomOpResolverCalculator" output_side_packet: "OP_RESOLVER:operators" }
node {
  calculator: "InferenceCalculator"
  input_side_packet: "OP_RESOLVER:operators"
  input_stream: "TENSORS:input"
  output_stream: "TENSORS:output"
  options { [mediapipe.InferenceCalculatorOptions.ext] {
    model_path: "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite"
    delegate { xnnpack { num_threads: 1 } } } }
}
node {
  calculator: "SplitTensorVectorCalculator"
  input_stream: "output"
  output_stream: "meshes"
  output_stream: "flag"
  options { [mediapipe.SplitVectorCalculatorOptions.ext] { ranges { begin: 0 end: 6 } ranges { begin: 6 end: 7 } } }
}
node {
  calculator: "TensorsToFloatsCalculator"
  input_stream: "TENSORS:flag"
  output_stream: "FLOAT:score"
  options { [mediapipe.TensorsToFloatsCalculatorOptions.ext] { activation: SIGMOID } }
}
node { calculator: "TensorsToFaceLandmarksWithAttention" input_stream: "TENSORS:meshes" output_stream: "LANDMARKS:landmarks" }
"""
# Those of our graphs that have options: what Python does not know of them is lost, without a word, on the way to the library.
_CALCULATORS = (
    *("core.split_vector", "tensor.image_to_tensor", "tensor.inference", "tensor.tensors_to_floats", "tensor.tensors_to_detections"),
    *("tensor.tensors_to_landmarks", "tflite.ssd_anchors", "util.landmarks_refinement", "util.non_max_suppression"),
)
_FINDER_GRAPH = "mediapipe/modules/face_detection/face_detection_{}_range_cpu.binarypb"
_stderr_lock = threading.Lock()


@dataclass(frozen=True)
class FoundFace:
    """A face as the finder sees it, in shares of the picture's sides.

    Attributes:
        score: 0 to 1.
        box: left, top, width, height.
        eyes: the subject's right eye, then the left.
    """

    score: float
    box: Float[np.ndarray, "4"]
    eyes: Float[np.ndarray, "2 2"]


class MediaPipeGraphs:
    """The finders and the mesh network. Not safe for two threads at once: the caller holds a lock.

    Raises:
        MissingDependencyError: mediapipe is absent or is a version without its models inside the wheel.
    """

    def __init__(self, least_score: float) -> None:
        with silenced_stderr():
            try:
                import_bare("mediapipe")
                for name in _CALCULATORS:
                    importlib.import_module(f"mediapipe.calculators.{name}_calculator_pb2")
                from google.protobuf import text_format
                from mediapipe.framework import calculator_pb2
                from mediapipe.modules.face_detection.face_detection_pb2 import FaceDetectionOptions
                from mediapipe.python.solution_base import SolutionBase
            except ImportError as error:
                raise MissingDependencyError(
                    f"mediapipe cannot be loaded ({error})", 'install it with: pip install "mediapipe==0.10.21"'
                ) from error
            config = text_format.Parse(_MESH_GRAPH, calculator_pb2.CalculatorGraphConfig())
            self._mesh = SolutionBase(graph_config=config, outputs=["landmarks", "score"])
            wanted = FaceDetectionOptions(min_score_thresh=least_score)
            self._finders = [
                SolutionBase(binary_graph_path=_FINDER_GRAPH.format(reach), graph_options=wanted, outputs=["detections"])
                for reach in ("short", "full")
            ]
            blank = np.zeros((CROP_PIXELS, CROP_PIXELS, 3), np.uint8)
            # The networks announce themselves when they first run.
            self.mesh(blank)
            for range_index in (0, 1):
                self.find(blank, range_index)

    def find(self, picture: UInt8[np.ndarray, "h w 3"], range_index: int) -> list[FoundFace]:
        """Faces of an RGB picture; `range_index` 0 finds faces near the camera, 1 also those far away."""
        result: Any = self._finders[range_index].process(picture)
        return [_found_face(detection) for detection in result.detections or []]

    def mesh(self, crop: UInt8[np.ndarray, "192 192 3"]) -> tuple[Float[np.ndarray, "478 3"], float]:
        """The 478 points (x, y in [0, 1], z on the scale of x) of the face in a crop, and how sure it is that one is there."""
        result: Any = self._mesh.process(crop)
        points = np.array([(point.x, point.y, point.z) for point in result.landmarks.landmark])
        return points, float(result.score)


def _found_face(detection: Any) -> FoundFace:
    location = detection.location_data
    box = location.relative_bounding_box
    eyes = np.array([(point.x, point.y) for point in location.relative_keypoints[:2]])
    return FoundFace(float(detection.score[0]), np.array([box.xmin, box.ymin, box.width, box.height]), eyes)


@contextlib.contextmanager
def silenced_stderr() -> Iterator[None]:
    """Keeps what C++ libraries write to the process's error stream off the user's screen, unless the block fails."""
    try:
        descriptor = sys.__stderr__.fileno() if sys.__stderr__ else 2
    except (OSError, ValueError):
        yield
        return
    with _stderr_lock, tempfile.TemporaryFile() as kept:
        saved = os.dup(descriptor)
        os.dup2(kept.fileno(), descriptor)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(saved, kept.read())
            raise
        finally:
            os.dup2(saved, descriptor)
            os.close(saved)
