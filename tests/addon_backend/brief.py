"""The real pipeline with a brief fit: photos are read, faces found and results packed as for users."""

from __future__ import annotations

from conftest import BRIEF_FIT
from focus_backend.reconstruction import fitting
from focus_backend.serving.config import PipelineConfig
from focus_backend.serving.photo_pipeline import PhotoPipeline


def load_brief(config: PipelineConfig) -> PhotoPipeline:
    """The pipeline."""
    for name, value in BRIEF_FIT.items():
        setattr(fitting, name, value)
    return PhotoPipeline.load(config)
