"""A pipeline that is ready at once: it follows the photo's orders (`serving/pipelines.py`), and no head comes of it."""

from __future__ import annotations

import dataclasses

from focus_backend.serving.config import PipelineConfig
from serving.pipelines import QuickPipeline

PARTS = ["geometry", "texture", "masks", "albedo", "photo", "model", "identity"]


class OrdersPipeline(QuickPipeline):
    """Takes requests for all parts."""

    info = dataclasses.replace(QuickPipeline.info, parts=PARTS)


def load_orders(config: PipelineConfig) -> OrdersPipeline:
    """The pipeline."""
    return OrdersPipeline()
