"""What a run tells: losses as JSON lines and TensorBoard scalars, panels of pictures, a progress bar, warnings."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from focus_backend.errors import OutputError, TrainingError
from focus_backend.files import write_whole
from train.run import StageFolder

if TYPE_CHECKING:
    from rich.progress import Progress as ProgressBar

Report = Callable[[Mapping[str, Any]], None]

# Share of the region that is called face, beyond which a mask is of no use.
ALL_OUTLIER, ALL_FACE = 0.02, 0.998


class Sums:
    """Sums of scalars that stay on the device until they are asked for: asking waits for it, adding does not."""

    def __init__(self, start: Mapping[str, float] | None = None) -> None:
        self._start = dict(start or {})
        self._sums: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Float[Tensor, ""]]) -> None:
        """Add detached values, and one to the count of each."""
        for name, value in values.items():
            value = value.detach().double()
            for key, increment in ((name, value), (f"{name}/count", torch.ones_like(value))):
                # The start comes first, so that a resumed sum is rounded as an uninterrupted one.
                self._sums[key] = self._sums.get(key, self._start.get(key, 0.0)) + increment

    def take(self) -> dict[str, float]:
        """Sums and counts so far, in one transfer; nothing is reset."""
        names = list(self._sums)
        values = torch.stack([self._sums[name] for name in names]).tolist() if names else []
        return self._start | dict(zip(names, values, strict=True))

    @staticmethod
    def means(sums: Mapping[str, float]) -> dict[str, float]:
        """Means of what was added."""
        return {name: sums[name] / max(1.0, sums[f"{name}/count"]) for name in sums if not name.endswith("/count")}


class StageLog:
    """The log of one stage, written by one process of a run.

    Args:
        folder: of the stage.
        first_step: where the stage goes on; what an earlier run logged beyond it is dropped.
        steps: of the stage.
        is_quiet: other processes than the first say nothing.
        report: is told every line of the log, for programs.
        last_loss: losses logged beyond this step are dropped, too.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(
        self, folder: StageFolder, first_step: int, steps: int, is_quiet: bool, report: Report | None = None, last_loss: int | None = None
    ) -> None:
        self._folder, self._steps, self._is_quiet, self._report = folder, steps, is_quiet, report
        self._board: Any = None
        self._bar: ProgressBar | None = None
        self._warned = False
        self._clock, self._clock_step = time.perf_counter(), first_step
        if is_quiet:
            return
        last_loss = first_step if last_loss is None else last_loss
        from torch.utils.tensorboard import SummaryWriter

        with _writing(folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
            _truncate(folder.losses, first_step, last_loss)
            # TensorBoard hides what older files hold from this step on.
            self._board = SummaryWriter(str(folder.path), purge_step=last_loss + 1)

    def __enter__(self) -> StageLog:
        if not self._is_quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._bar.add_task(self._folder.stage, total=self._steps, completed=self._clock_step)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._board is not None:
            # What it cannot write any more must not hide why the run ends.
            with suppress(OSError):
                self._board.close()

    def say(self, line: str) -> None:
        """One line for people, on stderr."""
        if self._is_quiet:
            return
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def losses(self, step: int, means: Mapping[str, float], rate: float, batch_size: int) -> None:
        """Means of the losses since the last call.

        Raises:
            TrainingError: a loss is not finite.
        """
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f"{bad[0]} is not finite at step {step} of {self._folder.stage}",
                f"delete {self._folder.path} and train it again with a lower learning_rate or with optimiser.clip_norm = 1",
            )
        now = time.perf_counter()
        speed = (step - self._clock_step) * batch_size / max(now - self._clock, 1e-9)
        self._clock, self._clock_step = now, step
        self._write({"step": step, "losses": dict(means), "learning_rate": rate})
        self._scalars("losses", means, step)
        self._scalars("run", {"learning_rate": rate, "images_per_second": speed}, step)
        self._warn_of_collapse(step, means)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, description=f"{self._folder.stage} {speed:.0f} images/s")
        else:
            total = sum(value for name, value in means.items() if not name.startswith("mask"))
            left = (self._steps - step) * batch_size / max(speed, 1e-9)
            self.say(f"{self._folder.stage} {step}/{self._steps}: loss {total:.4f}, {speed:.1f} images/s, {_duration(left)} left")

    def validation(self, step: int, measures: Mapping[str, float], panel: UInt8[np.ndarray, "height width 3"]) -> None:
        """Measures and pictures of faces that are not trained on."""
        if self._is_quiet:
            return
        self._write({"step": step, "validation": dict(measures)})
        self._scalars("validation", measures, step)
        write_picture(self._folder.pictures / f"{step:08d}.png", panel)
        with _writing(self._folder.path):
            self._board.add_image("photo, reconstruction, mask", panel, step, dataformats="HWC")
        listed = ", ".join(f"{name} {value:.3f}" for name, value in measures.items())
        self.say(f"{self._folder.stage} {step}: {listed}" if listed else f"{self._folder.stage} {step}: pictures written")

    def _warn_of_collapse(self, step: int, means: Mapping[str, float]) -> None:
        share = means.get("mask_share")
        if share is None:
            return
        is_collapsed = not ALL_OUTLIER < share < ALL_FACE
        if is_collapsed and not self._warned:
            what, weight = ("outlier", "area or preserve") if share < 0.5 else ("face", "neighbour")
            percent = 100 * max(share, 1 - share)
            self.say(
                f"warning: at step {step} the mask calls {percent:.1f} % of the faces {what}: "
                f"raise losses.segmentation.{weight} and train the stage again"
            )
        self._warned = is_collapsed

    def _scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        if self._board is not None:
            with _writing(self._folder.path):
                for name, value in values.items():
                    self._board.add_scalar(f"{group}/{name}", value, step)

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._is_quiet:
            return
        with _writing(self._folder.path), self._folder.losses.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._report is not None:
            self._report({"stage": self._folder.stage, **line})


def write_picture(path: Path, picture: UInt8[np.ndarray, "height width 3"]) -> None:
    """An RGB picture as PNG, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    write_whole(path, data.tobytes())


def read_losses(path: Path) -> list[dict[str, Any]]:
    """The lines of `losses.jsonl`."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    # A kill can cut the last line.
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def _truncate(path: Path, step: int, last_loss: int) -> None:
    """Drop what was logged beyond the checkpoint that the run goes on from."""
    kept = [line for line in read_losses(path) if line["step"] <= (last_loss if "losses" in line else step)]
    write_whole(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """A full disk and the like as an error of ours."""
    try:
        yield
    except OSError as error:
        remedy = "free some space; the same command goes on from the last checkpoint"
        raise OutputError(f"the log in {path} cannot be written ({error.strerror or error})", remedy) from error


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
