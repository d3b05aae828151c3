"""What the connection does by the clock, and what it keeps for a window that does not look; without a socket."""

from __future__ import annotations

from blender_addon.connection.conversation import Conversation
from blender_addon.connection.events import Event, EventQueue, Lost
from focus_backend.serving import wire
from serving.scripted_server import result


def test_progress_that_nobody_looks_at_costs_no_memory():
    queue = EventQueue()
    picture = {"preview": wire.Array("uint8", (1, 1, 3), b"abc")}
    queue.put(Event("a", wire.Accepted(3)))
    queue.put(Event("a", wire.Accepted(2)))
    for step in range(1000):
        queue.put(Event("a", wire.Progress("fit", step / 1000), picture if step == 5 else {}))
        queue.put(Event("b", wire.Progress("fit", step / 1000)))
    queue.put(Event("a", result()))
    events = queue.take()
    assert [type(event.body).__name__ for event in events] == ["Accepted", "Progress", "Progress", "Result"]
    assert events[0].body.ahead == 2
    assert events[1].body.fraction == 0.999
    assert events[1].arrays == picture
    assert queue.take() == []


class Clock:
    """Goes on when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def conversation(events: list[Event]) -> tuple[Conversation, Clock]:
    clock = Clock()
    return Conversation("tcp://127.0.0.1:5", "s", 10.0, events.append, "p", clock), clock


def test_silence_is_noticed_in_time():
    events: list[Event] = []
    talk, clock = conversation(events)
    for _ in range(9):
        clock.now += 1
        talk.tick()
    assert not events
    clock.now += 1.5
    talk.tick()
    assert isinstance(events[0].body, Lost)
    assert "no backend answers" in events[0].body.problem


def test_a_sleep_of_the_machine_is_no_silence():
    events: list[Event] = []
    talk, clock = conversation(events)
    talk.tick()
    clock.now += 3600
    talk.tick()
    assert not events
    for _ in range(12):
        clock.now += 1
        talk.tick()
    assert len(events) == 1


def test_one_ping_at_a_time():
    talk, clock = conversation([])
    sent = []
    for _ in range(8):
        talk.tick()
        sent += talk.take_outgoing()
        clock.now += 1
    assert len(sent) == 1
    ping = wire.unpack(sent[0], wire.REQUESTS)
    talk.receive(wire.pack(wire.Message(ping.id, wire.Pong())))
    talk.tick()
    assert len(talk.take_outgoing()) == 1
