"""The dead man's switch: without a word from a control that has the store, nobody judges a new version."""

import math
import time
from collections.abc import Callable

from gateway.log import get_logger
from gateway.worker.live_table import LiveTable

log = get_logger(component="worker")


class Isolation:
    """When a worker goes back to the old version of each open rollout, and by its table again."""

    def __init__(
        self, live_table: LiveTable, slot: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """clock: monotonic seconds."""
        self._live_table = live_table
        self._slot = slot
        self._clock = clock
        self._in_touch_at = -math.inf
        self._is_said = False

    def in_touch(self, at: float) -> None:
        """Control had the store at `at`. An older word than the last comes of another control: it counts."""
        self._in_touch_at = at
        self.look()

    def look(self, *, is_serving: bool = True) -> None:
        """Go back, or by the table, if it is time; to be called with every table, and every 100 ms or so.

        is_serving: what is done before is nobody's concern.
        """
        limit_s = self._live_table.proxy.isolation_s
        apart_s = self._clock() - self._in_touch_at
        is_isolated = 0 < limit_s < apart_s
        if is_isolated != self._live_table.is_isolated:
            self._live_table.isolate(is_isolated=is_isolated)
        if is_serving and is_isolated != self._is_said:
            self._is_said = is_isolated
            self._say(apart_s)

    def _say(self, apart_s: float) -> None:
        if not self._is_said:
            log.warning("worker_isolated_no_more", slot=self._slot)
            return
        services = self._live_table.open_rollouts()
        log.error(
            "worker_isolated",
            slot=self._slot,
            apart_s=round(apart_s, 1) if math.isfinite(apart_s) else None,
            services=services,
            consequence="open rollouts are served by their old versions",
        )
