"""The command line: a thin client of the admin API, with `serve`, `check` and `demo` beside it.

This room knows commands, tables for people and exit codes. It must not know rules: what may be done, and
when, is answered by the admin API.
"""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from gateway.cli.commands import run

    sys.exit(run(sys.argv[1:]))
