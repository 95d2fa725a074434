"""The database's time: one for all gateways that share it, whatever their own clocks say."""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime


class DatabaseClock:
    """The database's clock, carried on by one of this machine that only measures: nobody sets that one."""

    def __init__(
        self, said: datetime, asked_at: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """As `hear`. clock: monotonic seconds."""
        self._clock = clock
        self._zero = -math.inf
        """What the database's clock said at this machine's second 0, Unix seconds."""
        self.hear(said, asked_at)

    def hear(self, said: datetime, asked_at: float) -> None:
        """Take in what the database has said, asked at `asked_at` (monotonic seconds) and answered by now.

        It said so somewhen between, and counts as having said it last: a quicker answer moves it forward.
        What was known stays unless that excludes it: an answer that was long under way moves nothing, and a
        clock that is set, or another database, is followed at once.
        """
        earliest, latest = said.timestamp() - self._clock(), said.timestamp() - asked_at
        self._zero = min(latest, max(self._zero, earliest))

    def now(self) -> datetime:
        """Return its time now, UTC; right to the time that the quickest answer took."""
        return datetime.fromtimestamp(self._zero + self._clock(), UTC)
