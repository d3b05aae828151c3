"""Anything that clients, workers and time may do, in any order: what has to hold after each step."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from focus_backend.serving import wire
from focus_backend.serving.outbox import Route
from serving.broker_desk import SECRET, Desk, owner, remote

_QUEUE, _IN_FLIGHT, _QUEUE_BYTES = 6, 4, 6000
_GRACE = 5.0
_ROUTES = [owner("a"), owner("b"), remote("kim", "1"), remote("kim", "2"), remote("owner", "1")]
_routes = st.sampled_from(_ROUTES)
_ids = st.sampled_from([f"r{number}" for number in range(12)])
_workers = st.integers(0, 2)


def _user(route: Route) -> tuple[str, str]:
    return route.endpoint, route.user


class BrokerMachine(RuleBasedStateMachine):
    """Clients and workers that keep to no order, and a ledger of what was answered."""

    @initialize(batch=st.integers(1, 3), workers=st.integers(1, 3))
    def open(self, batch: int, workers: int) -> None:
        """A server with some workers."""
        self.batch = batch
        self.desk = Desk(
            batch=batch, workers=workers, work_seconds=60.0, queue=_QUEUE, requests_in_flight=_IN_FLIGHT, queue_bytes=_QUEUE_BYTES
        )
        self.number_of_workers = workers
        self.book = self.desk.broker._workshop.book
        self.schedule = self.desk.broker._workshop.schedule
        # Ids that were accepted and have no final answer, with the connection that waits for it.
        self.waiting: dict[tuple[tuple[str, str], str], Route] = {}
        self.ended: set[tuple[tuple[str, str], str]] = set()
        self.fractions: dict[tuple[tuple[str, str], str], float] = {}

    def _settle(self) -> None:
        """Reads what clients were told, and checks it against the ledger."""
        for route, message, is_final in self.desk.answers:
            key = (_user(route), message.id)
            body = message.body
            assert is_final == (body.kind not in ("accepted", "progress"))
            if body.kind == "accepted":
                # `_ask` notes the connection first; nobody else is told.
                assert self.waiting[key] == route
            elif body.kind == "progress":
                assert self.waiting[key] == route
                is_again = body.stage == "starting again" and body.fraction == 0.0
                assert is_again or body.fraction >= self.fractions.get(key, 0.0)
                self.fractions[key] = body.fraction
            elif body.kind == "error" and body.code == "duplicate":
                assert key in self.ended
            elif body.kind in ("result", "error"):
                assert self.waiting.pop(key) == route
                assert key not in self.ended
                self.ended.add(key)
        self.desk.answers.clear()

    def _jobs_of(self, worker: int) -> list[int]:
        """Jobs that a worker was given and has not ended."""
        known = self.desk.broker._workshop.roster.get(worker)
        return list(known.jobs) if known is not None else []

    @rule(route=_routes, message_id=_ids, size=st.sampled_from([1, 500, 3000]), fields=st.sampled_from(["", "fit", "network", "quiet"]))
    def ask(self, route: Route, message_id: str, size: int, fields: str) -> None:
        """A request with an id that may be new, under way or answered."""
        key = (_user(route), message_id)
        is_known = key in self.waiting
        if key not in self.ended:
            self.waiting[key] = route
        options = wire.Options(method=fields if fields in ("fit", "network") else None)
        self.desk.ask(route, message_id, {"photo": wire.Array.of(bytes(size))}, options=options, progress=fields != "quiet")
        (kind,) = {body.kind for body in self.desk.of(route, message_id)}
        assert kind == "accepted" or not is_known
        self._settle()

    @rule(route=_routes, message_id=_ids, fields=st.sampled_from([{"parts": ["x"]}, {"preview_side": -1}, {"deadline_seconds": 0.0}]))
    def ask_amiss(self, route: Route, message_id: str, fields: dict[str, Any]) -> None:
        """A request that must not be taken; under an id of one under way it is that one, sent twice."""
        key = (_user(route), message_id)
        is_known = key in self.waiting
        if key not in self.ended:
            self.waiting[key] = route
        self.desk.ask(route, message_id, **fields)
        assert self.desk.last(route, message_id).kind == ("accepted" if is_known else "error")
        self._settle()

    @rule(route=_routes, message_id=_ids, deadline=st.floats(0.1, 20))
    def ask_soon(self, route: Route, message_id: str, deadline: float) -> None:
        """A request with little time."""
        key = (_user(route), message_id)
        if key not in self.ended:
            self.waiting[key] = route
        self.desk.ask(route, message_id, deadline_seconds=deadline)
        self._settle()

    @rule(route=_routes, message_id=_ids)
    def cancel(self, route: Route, message_id: str) -> None:
        """A cancel, of whatever it may be."""
        is_known = (_user(route), message_id) in self.waiting
        self.desk.send(route, "control", wire.Cancel(message_id))
        assert self.desk.last(route, "control") == wire.Done(found=is_known)
        self._settle()
        assert (_user(route), message_id) not in self.waiting

    @rule(route=_routes, body=st.sampled_from([wire.Hello(), wire.Ping(), wire.Status(), wire.Status(prometheus=True)]))
    def control(self, route: Route, body: Any) -> None:
        """Control messages are answered in the same call."""
        self.desk.send(route, "control", body)
        assert self.desk.last(route, "control").kind in ("welcome", "pong", "status-report")
        self._settle()

    @rule(route=_routes, frames=st.lists(st.binary(max_size=40), max_size=3), message_id=_ids)
    def garbage(self, route: Route, frames: list[bytes], message_id: str) -> None:
        """No messages, and some with the id of a request; without the secret."""
        self.desk.broker.client_message(route, frames)
        self.desk.broker.client_message(route, [b'{"focus": 1, "type": "x", "id": "%s"}' % message_id.encode()])
        if route.endpoint == "owner":
            self.desk.send(owner("stranger"), "intruding", wire.Cancel(message_id), secret=SECRET[1:])
        self.desk.collect()
        # Errors for ids that are not under way belong to no request.
        self.desk.answers = [answer for answer in self.desk.answers if answer[1].id not in ("unknown", "intruding")]
        assert all((_user(to), message.id) not in self.waiting for to, message, _ in self.desk.answers)
        self.desk.answers.clear()

    @rule(route=_routes)
    def gone(self, route: Route) -> None:
        """A connection breaks; nobody waits for its answers."""
        self.desk.broker.client_gone(route)
        self.desk.collect()
        for key in [key for key, waiting in self.waiting.items() if waiting == route]:
            del self.waiting[key]
            self.fractions.pop(key, None)
        self._settle()

    @rule(
        which=st.integers(0, 8),
        how=st.sampled_from(["result", "error", "progress", "progress", "twice"]),
        data=st.sampled_from([0.1, 0.4, 0.7]),
    )
    def work(self, which: int, how: str, data: float) -> None:
        """A worker says something of one of its jobs, wanted or not."""
        jobs = [(worker, job) for worker in range(3) for job in self._jobs_of(worker)]
        if not jobs:
            return
        worker, job = jobs[which % len(jobs)]
        if how == "progress":
            self.desk.progress(worker, job, data)
        else:
            self.desk.finish(worker, job, wire.Error("no-face", "there is none") if how == "error" else None)
        if how == "twice":
            self.desk.finish(worker, job)
        self._settle()

    @rule(worker=_workers)
    def die(self, worker: int) -> None:
        """A worker dies, and may stay away."""
        if worker < self.number_of_workers:
            self.desk.lose(worker)
            self._settle()

    @rule(worker=_workers, is_ready=st.booleans())
    def restart(self, worker: int, is_ready: bool) -> None:
        """A worker that was lost is started again."""
        known = self.desk.broker._workshop.roster.get(worker)
        if known is not None and known.state == "lost":
            self.desk.start(worker)
            if is_ready:
                self.desk.ready(worker)
            self._settle()

    @rule(seconds=st.sampled_from([0.05, 0.5, 2.0, 4.0, 30.0, 1000.0]), is_one_step=st.booleans())
    def time_goes_by(self, seconds: float, is_one_step: bool) -> None:
        """Ticks, or a leap of the clock."""
        self.desk.wait(seconds, seconds if is_one_step else max(seconds / 10, 0.05))
        self._settle()
        for worker in self.desk.to_replace:
            self.desk.lose(worker)
        self.desk.to_replace.clear()
        self._settle()

    @precondition(lambda self: not self.desk.broker.is_closing)
    @rule(do_it=st.integers(0, 9))
    def close(self, do_it: int) -> None:
        """The server is told to end, now and then."""
        if do_it == 0:
            self.desk.broker.close(_GRACE)
            self.desk.collect()
            self._settle()

    @invariant()
    def ledger_and_book_agree(self) -> None:
        """Every request that was accepted is under way until it is answered, and no other."""
        assert {(job.user, job.message_id): job.route for job in self.book} == self.waiting

    @invariant()
    def all_is_bounded(self) -> None:
        """Places, bytes and parties keep to the limits; what a dead worker gave back was admitted before."""
        jobs = list(self.book)
        assert sum(len(waiting) for waiting in self.schedule._waiting.values()) <= _QUEUE
        assert self.book.total_bytes == sum(job.size for job in jobs) <= _QUEUE_BYTES
        assert all(self.book.count(job.party) <= _IN_FLIGHT for job in jobs)

    @invariant()
    def workers_hold_what_they_may(self) -> None:
        """Each running request is at one worker, which has no more than a batch, all of one sort; nobody is idle while some wait."""
        assert all(job.tries <= 2 for job in self.book)
        held = [job for worker in range(3) for job in self._jobs_of(worker)]
        assert len(held) == len(set(held))
        assert {job.number for job in self.book if job.worker is not None} <= set(held)
        assert len(self.schedule) == sum(job.worker is None for job in self.book)
        for worker in self.desk.broker._workshop.roster:
            assert len(worker.jobs) <= self.batch
            assert {job for job in worker.jobs if self.book.numbered(job) is None} <= set(self.desk.workers[worker.number].cancelled)
            assert not (worker.is_idle and len(self.schedule))
            assert len({job.batch_key for job in map(self.book.numbered, worker.jobs) if job is not None}) <= 1

    @invariant()
    def nothing_failed_by_our_own_fault(self) -> None:
        """The net under all client messages caught nothing."""
        assert "fault" not in {event for event, _ in self.desk.events}

    def teardown(self) -> None:
        """In the end everybody has an answer."""
        if not hasattr(self, "desk"):
            return
        self.desk.broker.close(_GRACE)
        self.desk.wait(_GRACE + 1)
        self._settle()
        assert self.desk.broker.is_finished
        assert not self.waiting
        assert self.book.total_bytes == 0


class FairnessMachine(RuleBasedStateMachine):
    """Parties that send as they like: whoever is first in its own line waits for at most one take from each other line."""

    @initialize(batch=st.integers(1, 3))
    def open(self, batch: int) -> None:
        """A server with one worker, busy most of the time."""
        self.desk = Desk(batch=batch, queue=40, requests_in_flight=12)
        self.schedule = self.desk.broker._workshop.schedule
        self.sent = 0
        self.seen = 0
        # By party: how often each other party has opened a batch since this one's first job has come first.
        self.passed: dict[str, dict[str, int]] = {}

    def _heads(self) -> set[str]:
        return {party[1] for party in self.schedule._waiting}

    def _note(self) -> None:
        order = self.desk.workers[0]
        for batch in order.taken[self.seen :]:
            parties = [order.messages[job].id.split("-")[0] for job in batch]
            for party in parties:
                self.passed.pop(party, None)
            for waiting in self.passed.values():
                waiting[parties[0]] = waiting.get(parties[0], 0) + 1
                assert waiting[parties[0]] <= 1, "a party was passed over twice by another"
        self.seen = len(order.taken)
        self.passed = {party: self.passed.get(party, {}) for party in self._heads()}

    @rule(party=st.sampled_from("abc"), count=st.integers(1, 4), method=st.sampled_from(["fit", "network"]))
    def send(self, party: str, count: int, method: str) -> None:
        """Some requests at once."""
        for _ in range(count):
            self.sent += 1
            self.desk.ask(remote(party), f"{party}-{self.sent}", options=wire.Options(method=method))
            self._note()

    @rule()
    def finish(self) -> None:
        """The worker ends all it has."""
        for job in list(self.desk.broker._workshop.roster.get(0).jobs):
            self.desk.finish(0, job)
            self._note()

    @rule(party=st.sampled_from("abc"), number=st.integers(1, 30))
    def cancel(self, party: str, number: int) -> None:
        """Some give up."""
        self.desk.send(remote(party), "control", wire.Cancel(f"{party}-{number}"))
        self._note()


_SETTINGS = settings(max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestBroker = BrokerMachine.TestCase
TestBroker.settings = _SETTINGS
TestFairness = FairnessMachine.TestCase
TestFairness.settings = _SETTINGS
