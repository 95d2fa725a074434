"""Whether this gateway has the store it shares with others, as its workers hear of it, and for how long not.

The workers hold the switch: they go back to old versions when the word fails to come (`worker/isolation.py`).
This only gives the word, and says what follows when it cannot.
"""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

from gateway.log import get_logger

log = get_logger(component="cluster")

LOOK_S: Final = 1.0


class Isolation:
    """The last time that this gateway had the store, and went by it."""

    def __init__(
        self,
        limit_s: float,
        tell: Callable[[float], None],
        carried: Callable[[], list[str]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """limit_s: after so long it is isolated; 0: nobody else has this store, and it never is.

        tell: takes the word to the workers. carried: the services whose new version has requests. clock:
        monotonic seconds, as workers read them.
        """
        self.limit_s = limit_s
        self._tell = tell
        self._carried = carried
        self._clock = clock
        self._at = -math.inf

    def in_touch(self, at: float) -> None:
        """This gateway had the store at `at`, monotonic seconds, and goes by what is there."""
        self._at = at
        self._tell(at)

    @property
    def left_s(self) -> float | None:
        """How soon it is isolated, if no further word comes; None: never."""
        return self.limit_s - (self._clock() - self._at) if self.limit_s else None

    @property
    def trouble(self) -> str:
        """What is to be said of it; empty: it is not isolated."""
        left_s = self.left_s
        if left_s is None or left_s >= 0:
            return ""
        apart_s = self.limit_s - left_s
        since = f"for {apart_s:.0f} s" if math.isfinite(apart_s) else "since it was started"
        served = ", ".join(self._carried()) or "none is open"
        return (
            f"isolated: without the store {since}; open rollouts are served by their old versions: {served}"
        )

    async def run(self) -> None:
        """Say so in the log, for as long as this runs."""
        was_isolated = False
        while True:
            await asyncio.sleep(LOOK_S)
            trouble = self.trouble
            if bool(trouble) == was_isolated:
                continue
            was_isolated = bool(trouble)
            if trouble:
                log.error("isolated", reason=trouble)
            else:
                log.warning("isolated_no_more", consequence="what is stored holds again")
