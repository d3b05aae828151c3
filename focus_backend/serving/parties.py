"""Who asks: whose requests are told apart, and who takes turns."""

from __future__ import annotations

from collections.abc import Callable

from focus_backend.serving.outbox import Route

# A user: the server's owner or a key. Ids of requests are a user's own, whatever connection they come through.
User = tuple[str, str]
# One that takes turns: a connection of the owner's, or a key with all its connections.
Party = tuple[str, str, int, bytes]

_HEARD_LATELY_SECONDS = 30.0
_MOST_CONNECTIONS = 65_536


def user_of(route: Route) -> User:
    """The user behind a connection; a key named "owner" is not the owner."""
    return (route.endpoint, route.user)


def party_of(route: Route) -> Party:
    """The party that a connection belongs to."""
    if route.endpoint == "owner":
        return (route.endpoint, route.user, route.number, route.identity)
    return (route.endpoint, route.user, 0, b"")


class Connections:
    """Counts the connections heard of in the last half minute.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Longest silent first.
        self._heard: dict[Route, float] = {}

    def heard(self, route: Route) -> None:
        """Notes a sign of life."""
        self._heard.pop(route, None)
        self._heard[route] = self._clock()
        if len(self._heard) > _MOST_CONNECTIONS:
            del self._heard[next(iter(self._heard))]

    def gone(self, route: Route) -> None:
        """Forgets a connection."""
        self._heard.pop(route, None)

    def __len__(self) -> int:
        self.forget_silent()
        return len(self._heard)

    def forget_silent(self) -> None:
        """Lets go of those that were silent too long."""
        oldest = self._clock() - _HEARD_LATELY_SECONDS
        for route, heard in list(self._heard.items()):
            if heard >= oldest:
                return
            del self._heard[route]
