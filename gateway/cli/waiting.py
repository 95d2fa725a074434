"""Look again and again, until something is so or time is up."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from gateway.cli.client import AdminClient
from gateway.cli.exits import TIMED_OUT, ApiError, CliError, Unreachable

T = TypeVar("T")

LOOK_EVERY_S: Final = 0.5


def wait_for(
    api: AdminClient,
    look: Callable[[], T | None],
    timeout_ms: int,
    otherwise: str | Callable[[], str],
    *,
    code: int = TIMED_OUT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Look every half second until there is an answer. A gateway that restarts meanwhile is waited for.

    api: what `look` asks. Raises CliError (`code`) with `otherwise` after timeout_ms.
    """
    deadline = clock() + timeout_ms / 1000
    while (found := _seen(api, look)) is None:
        if clock() >= deadline:
            raise CliError(otherwise if isinstance(otherwise, str) else otherwise(), code)
        sleep(LOOK_EVERY_S)
    return found


def _seen(api: AdminClient, look: Callable[[], T | None]) -> T | None:
    try:
        return look()
    except Unreachable:
        return None
    except ApiError as exc:
        if exc.status == 404 and api.has_moved:  # this gateway has yet to hear of it
            return None
        raise
