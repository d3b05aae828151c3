"""A pipeline that takes no time, for trials of these benchmarks and for what the real one is never seen to do: raise, hang, die."""

from __future__ import annotations

import dataclasses

from focus_backend.serving.config import PipelineConfig
from tests.serving.pipelines import QuickPipeline

QUICK = f"{__name__}:load_quick"
GOOD_PHOTO = b"faces 2"


class AskablePipeline(QuickPipeline):
    """Follows orders, and takes the parts that clients ask for by default."""

    info = dataclasses.replace(QuickPipeline.info, parts=["geometry", "texture", "masks", "photo"])


def load_quick(config: PipelineConfig) -> AskablePipeline:
    """Ready at once."""
    return AskablePipeline()
