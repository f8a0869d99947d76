"""The line in front of a model that answers so many at a time; threads and coroutines stand in it together."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from jargon_rag.errors import TooManyQuestions


class WaitingLine:
    """First come, first answered. A place is a future that is done when its turn has come."""

    def __init__(self, at_once: int = 1, *, per_minute: int | None = None) -> None:
        """Start with nobody in it; the first `at_once` are answered side by side. One client may join so often in a minute."""
        self.at_once = at_once
        self._rate = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._counted = MovingWindowRateLimiter(MemoryStorage())
        self._places: deque[Future[None]] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many are in it, the one who is being answered included."""
        return len(self._places)

    def admit(self, client: str) -> None:
        """Count a question of a client's, or raise TooManyQuestions."""
        if self._rate is not None and not self._counted.hit(self._rate, client):
            again = self._counted.get_window_stats(self._rate, client).reset_time - time.time()
            raise TooManyQuestions(max(1, math.ceil(again)))

    @property
    def before_the_next(self) -> int:
        """Return how many must be answered before the turn comes of one who would join now."""
        return max(0, len(self._places) + 1 - self.at_once)

    def join(self) -> Future[None]:
        """Take the last place. Whoever joins must leave, answered or not."""
        place: Future[None] = Future()
        with self._lock:
            self._places.append(place)
            if len(self._places) <= self.at_once:
                _call(place)
        return place

    def leave(self, place: Future[None]) -> None:
        """Give up a place; if its turn had come, it is the next one's."""
        with self._lock:
            position = self._places.index(place)
            self._places.remove(place)
            if position < self.at_once <= len(self._places):
                _call(self._places[self.at_once - 1])

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn, and hold it."""
        place = self.join()
        try:
            place.result()
            yield
        finally:
            self.leave(place)


def _call(place: Future[None]) -> None:
    if place.set_running_or_notify_cancel():  # False: its coroutine was cancelled, and is about to leave
        place.set_result(None)
