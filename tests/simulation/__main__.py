"""Run seeds: `python -m tests.simulation --seed N [--steps N] [--trace]`, `--seeds N` for the first N.

The last word on standard output is the hash of the trace (of all traces).
"""

import os
import sys

if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of strings is part of what a seed decides
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])

from tests.simulation import machine

machine.interpose()

from tests.simulation import cli  # noqa: E402  # not before the machine is in place

machine.settle_imports()
sys.exit(cli.main(sys.argv[1:]))
