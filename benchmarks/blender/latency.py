"""Time from click to head, and how long Blender's main thread is away meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.blender.trial import TrialOptions, opened_trial
from benchmarks.serving.report import console, spread, table
from scripts.window_test.screen import WindowTestError
from scripts.window_test.steps import BUTTON, Visit, becomes, wait_for_end, wait_for_new_job

QUIET_SECONDS = 5.0


@dataclass(frozen=True)
class Run:
    """One measurement; seconds.

    Attributes:
        to_head: from the click until the head is an object of the scene; 0.0 where nothing was clicked.
        away: the longest time that Blender's main thread did not come back to its timers, drawing included.
        away_at: when that began, from the click.
        own: the longest stay in the extension's own code, of the processor's time; None where Python cannot tell.
        own_where: in which function.
    """

    to_head: float
    away: float
    away_at: float
    own: float | None
    own_where: str

    @classmethod
    def of(cls, watched: dict, clicked: float = 0.0) -> Run:
        """Of what the inspector has seen."""
        stays, (away, away_from) = watched["own_code"], watched["longest"][0]
        longest = stays[0] if stays else (0.0, 0.0, "")
        to_head = min(watched["heads"].values()) - clicked if clicked else 0.0
        return cls(to_head, away, away_from - clicked if clicked else 0.0, None if stays is None else longest[1], longest[2])


def click_and_wait(visit: Visit) -> Run:
    """From the click to the head."""
    window, previous = visit.window, visit.job()
    button = visit.sidebar.find(BUTTON)
    window.ask("watch")
    clicked = window.screen.click(button.x, button.y)
    visit.sidebar.rest()
    wait_for_new_job(visit, previous)
    job = wait_for_end(visit)
    if job["state"] != "finished":
        raise WindowTestError(f"the job ended otherwise: {job}")
    window.wait_for("the head comes into the scene", lambda: window.ask("watched")["heads"], 60)
    # The undo step and the panel come after the head, and belong to it.
    time.sleep(1.0)
    return Run.of(window.ask("watched"), clicked)


def take_back(visit: Visit) -> None:
    """Undoes the head, so that the next is built and not updated."""
    visit.sidebar.rest()
    visit.window.screen.key("ctrl+z")
    if not becomes(visit, lambda scene: not scene["heads"]):
        raise WindowTestError("one undo did not take the head away")


def watch_quietly(visit: Visit, turns_view: bool) -> Run:
    """Without a request: nothing happens, or the viewport is drawn again and again."""
    visit.window.ask("watch", turns_view=turns_view)
    time.sleep(QUIET_SECONDS)
    watched = visit.window.ask("watched")
    visit.window.ask("watch")
    return Run.of(watched)


def run_latency(options: TrialOptions, cold: int, warm: int) -> None:
    """Print click to head with a backend that has to be started and with one that runs, and the main thread's absences."""
    rows: dict[str, list[Run]] = {"nothing happens": [], "viewport drawn all the time": [], "cold backend": [], "warm backend": []}
    for turn in range(cold):
        with opened_trial(options) as visit:
            rows["nothing happens"].append(watch_quietly(visit, turns_view=False))
            rows["viewport drawn all the time"].append(watch_quietly(visit, turns_view=True))
            rows["cold backend"].append(click_and_wait(visit))
            for _ in range(warm if turn == cold - 1 else 0):
                take_back(visit)
                rows["warm backend"].append(click_and_wait(visit))
    cells = [_cells(name, runs) for name, runs in rows.items()]
    console().print(table("from click to head; median (least, most)", _COLUMNS, cells))


_COLUMNS = (
    "",
    "runs",
    "to head, s",
    "main thread away, ms",
    "before (-) or after the head, s",
    "in the extension's own code, ms",
    "longest there in",
)


def _cells(name: str, runs: list[Run]) -> list[object]:
    to_head = [run.to_head for run in runs if run.to_head]
    own = [1000 * run.own for run in runs if run.own is not None]
    apart = [run.away_at - run.to_head for run in runs if run.to_head]
    where = max(runs, key=lambda run: run.own or 0.0).own_where if runs else ""
    return [name, len(runs), spread(to_head, 2), spread([1000 * run.away for run in runs], 0), spread(apart, 2), spread(own), where]
