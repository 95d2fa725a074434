"""The command line: a thin client of the admin API, with `serve`, `check` and `demo` beside it.

This room knows commands, tables for people and exit codes. It must not know rules: what may be done, and
when, is answered by the admin API.
"""

import io
import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command line and exit with its code."""
    from gateway.cli.commands import run

    if sys.stdout is None:  # closed by whoever called us (`>&-`)
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # as long as we live
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an arrow that a terminal lacks is no reason to fail
    sys.exit(run(sys.argv[1:]))
