"""Face models: coefficients to vertices and albedo, the files they are kept in, and how the default one is made."""

from focus_backend.morphable.build import build_model
from focus_backend.morphable.face_model import FaceModel, SurfacePoints
from focus_backend.morphable.store import find_model, list_models, load_model, model_info, save_model

__all__ = ["FaceModel", "SurfacePoints", "build_model", "find_model", "list_models", "load_model", "model_info", "save_model"]
