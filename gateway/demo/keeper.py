"""Ends the demo's processes and deletes its folder, however the demo ends: `… gateway.demo.keeper FOLDER`.

It waits for the end of its standard input, which the demo holds open and never writes to: the kernel closes
it even for one that was killed. All processes of a demo name its folder in their command lines.
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

GRACE_S: Final = 12.0
"""For the gateway to drain and the services to end by themselves."""
LOOK_S: Final = 0.05


def processes(folder: Path) -> list[int]:
    """Return the pids whose command lines name the folder, without our own."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def end(folder: Path) -> None:
    """End the processes, by force after GRACE_S, and delete the folder."""
    for pid in processes(folder):
        with suppress(ProcessLookupError):
            if os.getsid(pid) == pid:  # a worker is its control's to end
                os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while (left := processes(folder)) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Wait for the demo's end, then clean up. Signals for the whole terminal are not for us."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end(Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
