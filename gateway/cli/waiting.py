"""Look again and again, until something is so or time is up."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from gateway.cli.exits import TIMED_OUT, CliError

T = TypeVar("T")

LOOK_EVERY_S: Final = 0.5


def wait_for(
    look: Callable[[], T | None],
    timeout_ms: int,
    otherwise: str | Callable[[], str],
    *,
    code: int = TIMED_OUT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Look every half second until there is an answer.

    Raises CliError (`code`) with `otherwise` after timeout_ms.
    """
    deadline = clock() + timeout_ms / 1000
    while (found := look()) is None:
        if clock() >= deadline:
            raise CliError(otherwise if isinstance(otherwise, str) else otherwise(), code)
        sleep(LOOK_EVERY_S)
    return found
