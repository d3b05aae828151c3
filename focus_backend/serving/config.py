"""What `focus-backend serve` can be told, from TOML and flags."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from focus_backend.serving.wire import Limits, WireLimits

MEGABYTE = 2**20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitsConfig(_Strict):
    """What the server admits; all of it is published in `Welcome`."""

    # One frame: a photo as its file has it, or its pixels.
    frame_bytes: int = Field(default=64 * MEGABYTE, ge=1024)
    # Of a photo, width times height, and its longest side.
    pixels: int = Field(default=64_000_000, ge=4096)
    side: int = Field(default=16_384, ge=64)
    # Of one photo, largest first.
    faces: int = Field(default=16, ge=1)
    # Of one client, waiting and running.
    requests_in_flight: int = Field(default=16, ge=1)
    # Of all clients.
    queue: int = Field(default=64, ge=1)
    queue_bytes: int = Field(default=512 * MEGABYTE, ge=1024)
    # The longest a request may ask for, waiting included.
    deadline_seconds: float = Field(default=600.0, gt=0)
    # Textures come at 1,024 pixels a side, and are scaled down on request.
    texture_size: int = Field(default=8192, ge=16)
    preview_side: int = Field(default=256, ge=0)

    def published(self) -> Limits:
        """As clients see them."""
        wire = self.wire()
        return Limits(header_bytes=wire.header_bytes, frames=wire.frames, total_bytes=wire.total_bytes, **self.model_dump())

    def wire(self) -> WireLimits:
        """As they are applied to the bytes of a request."""
        return WireLimits(frame_bytes=self.frame_bytes, total_bytes=self.frame_bytes + WireLimits().header_bytes)


class PipelineConfig(_Strict):
    """What the workers load."""

    model: str = "anny"
    landmarks: str = "mediapipe"
    # The default of requests that name none: auto, fit, network or refine.
    method: str = "auto"
    weights: str | None = None
    device: str = "auto"
    # Processor threads of a worker; matrices of a fit are small, more seldom help.
    threads: int = Field(default=1, ge=1)


class ServerConfig(_Strict):
    """The whole server."""

    # "tcp://HOST:PORT"; port 0 for a free one. Loopback is for the owner, anything else for clients with keys.
    bind: tuple[str, ...] = ("tcp://127.0.0.1:0",)
    # None for one in the user's runtime folder.
    ready_file: Path | None = None
    # The server's own key and its clients'; None for the user's configuration folder.
    keys: Path | None = None
    # The server ends when this process does.
    parent_pid: int | None = Field(default=None, ge=1)
    # 0: one on a GPU, on processors one for every two cores, at most four.
    workers: int = Field(default=0, ge=0, le=64)
    # Requests that go through the networks at once when several wait; 0: eight on a GPU, else one, for larger batches may
    # change the last bits of a result and gain little on processors.
    batch: int = Field(default=0, ge=0, le=64)
    # Running work may go on so long when the server is asked to end.
    grace_seconds: float = Field(default=10.0, ge=0)
    # A request that runs longer than this has hung: its worker is replaced.
    work_seconds: float = Field(default=300.0, gt=0)
    limits: LimitsConfig = LimitsConfig()
    pipeline: PipelineConfig = PipelineConfig()
    # "text" or "json", one line an event, to stderr.
    log: str = Field(default="text", pattern="^(text|json)$")
