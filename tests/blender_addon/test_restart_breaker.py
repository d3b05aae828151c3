"""When a backend that ends again and again is not started any more."""

from __future__ import annotations

from blender_addon.connection.restart_breaker import RestartBreaker


def test_the_breaker():
    now = [0.0]
    breaker = RestartBreaker(clock=lambda: now[0])

    def run(seconds: float, *, answers: bool = False, too_late: bool = False) -> None:
        breaker.started()
        if answers:
            breaker.answered()
        now[0] += seconds
        breaker.ended(too_late=too_late)

    run(59)
    run(1)
    assert not breaker.is_open
    run(1, answers=True)
    run(1)
    run(61)
    run(1)
    run(120, too_late=True)
    breaker.ended()
    assert not breaker.is_open
    run(60)
    assert breaker.is_open
    breaker.reset()
    assert not breaker.is_open
