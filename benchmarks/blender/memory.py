"""Memory of Blender over many reconstructions and undos."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.blender.latency import take_back
from benchmarks.blender.trial import TrialOptions, opened_trial
from benchmarks.serving.report import console, slope, table
from scripts.window_test.screen import WindowTestError
from scripts.window_test.steps import Visit, becomes, wait_for_end, wait_for_new_job

MEGABYTE = 2**20


@dataclass(frozen=True)
class Sample:
    """After so many reconstructions, each undone.

    Attributes:
        done: how many.
        resident: bytes of Blender.
        datablocks: number of each kind.
    """

    done: int
    resident: int
    datablocks: dict[str, int]

    @classmethod
    def of(cls, visit: Visit, done: int) -> Sample:
        """Now."""
        memory = visit.window.ask("memory")
        return cls(done, memory["resident"], memory["datablocks"])


def reconstruct_and_undo(visit: Visit, method: str) -> None:
    """By the operator, as a script would, but without waiting in it; the undo by the keyboard."""
    previous = visit.job()
    arguments = {"filepath": str(visit.photo), **({"method": method} if method else {})}
    visit.window.ask("call", operator="reconstruct", arguments=arguments)
    wait_for_new_job(visit, previous)
    job = wait_for_end(visit)
    if job["state"] != "finished":
        raise WindowTestError(f"the job ended otherwise: {job}")
    if not becomes(visit, lambda scene: bool(scene["heads"])):
        raise WindowTestError("no head came into the scene")
    take_back(visit)


def run_memory(options: TrialOptions, times: int, every: int, method: str) -> None:
    """Print resident size and datablocks, and the slope of the second half."""
    samples = []
    with opened_trial(options) as visit:
        samples.append(Sample.of(visit, 0))
        for done in range(1, times + 1):
            reconstruct_and_undo(visit, method)
            if done % every == 0:
                samples.append(Sample.of(visit, done))
                print(f"{done} of {times}: {samples[-1].resident / MEGABYTE:.0f} MB", flush=True)
    kinds = sorted({kind for sample in samples for kind in sample.datablocks if len({s.datablocks.get(kind, 0) for s in samples}) > 1})
    rows = [[s.done, f"{s.resident / MEGABYTE:.1f}", sum(s.datablocks.values()), *(s.datablocks.get(k, 0) for k in kinds)] for s in samples]
    console().print(table(f"memory over {times} reconstructions and undos", ("done", "Blender MB", "datablocks", *kinds), rows))
    half = samples[len(samples) // 2 :]
    growth = slope([sample.done for sample in half], [sample.resident for sample in half])
    print(f"{growth / 1024:+.1f} kB a reconstruction, second half")
