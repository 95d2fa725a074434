"""How often one token, and one address, may do something."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final, Literal

KEYS_KEPT: Final = 10_000
"""Keys remembered at once; past that the one unused for longest is forgotten."""

Budget = Literal["starts", "changes", "refusals"]
"""Which allowance is drawn on: rollout starts, every other change, or rows about what a token was refused."""


class SlidingWindow:
    """At most `limit` events per key in any `window_s` seconds. Exact: the last `limit` times are kept."""

    def __init__(self, limit: int, window_s: float, *, keys_kept: int = KEYS_KEPT) -> None:
        self.limit = limit
        self.window_s = window_s
        self._keys_kept = keys_kept
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, key: str, now: float) -> float:
        """Return the seconds until `key` may act again; 0.0: now. now: monotonic seconds."""
        times = self._times.get(key)
        if times is None or len(times) < self.limit:
            return 0.0
        return max(0.0, times[0] + self.window_s - now)

    def record(self, key: str, now: float) -> None:
        """Count one event of `key`."""
        times = self._times.get(key)
        if times is None:
            times = self._times[key] = deque(maxlen=self.limit)
            if len(self._times) > self._keys_kept:
                self._times.popitem(last=False)
        else:
            self._times.move_to_end(key)
        times.append(now)


class RateLimiter:
    """The allowances of every token and every address. Reads, rollbacks and pauses never come here."""

    def __init__(self, *, starts_per_minute: int, changes_per_minute: int) -> None:
        self._windows: dict[Budget, SlidingWindow] = {
            "starts": SlidingWindow(starts_per_minute, 60.0),
            "changes": SlidingWindow(changes_per_minute, 60.0),
            "refusals": SlidingWindow(changes_per_minute, 60.0),
        }

    def admit(self, budget: Budget, keys: Sequence[str], now: float) -> float:
        """Take one from `budget` for each of `keys`, or from none of them.

        Returns 0.0 when taken, else the seconds until all of them may act.
        """
        window = self._windows[budget]
        wait_s = max(window.wait_s(key, now) for key in keys)
        if wait_s == 0.0:
            for key in keys:
                window.record(key, now)
        return wait_s
