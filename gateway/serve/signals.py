"""Which signal means what to the control process. Its workers and template ignore all but SIGTERM."""

import asyncio
import signal
from collections.abc import Callable
from typing import Final

STOP: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""Container images stop a gateway by SIGQUIT, a terminal by SIGINT."""
HELD_BACK: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Would end a process that does not handle them yet: they wait until it does."""
IGNORED: Final = (
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGSTKFLT,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
"""Mean nothing to a gateway, and would end it undrained."""


def hold_back() -> None:
    """Let no signal but those to stop end this process, nor any that it forks."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


def handle(
    *,
    stop: Callable[[], None],
    reload: Callable[[], None],
    reopen_logs: Callable[[], None],
    upgrade: Callable[[], None],
) -> None:
    """Act on signals from now on, those that were held back first."""
    loop = asyncio.get_running_loop()
    for number in STOP:
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)
    loop.add_signal_handler(signal.SIGUSR1, reopen_logs)
    loop.add_signal_handler(signal.SIGUSR2, upgrade)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
