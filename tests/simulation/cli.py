"""The command line of the simulation.

Each seed runs in a child that is forked from a parent which has only imported: nothing that one leaves behind
in a module reaches the next, and a seed alone does what it did among others.
"""

import argparse
import gc
import hashlib
import json
import os
import sys
import traceback
from collections import Counter
from typing import Any, Final

from tests.simulation.run import Broken, Simulation

STEPS: Final = 2_000

Found = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Run the seeds asked for. Returns 1 if one of them broke something."""
    chosen = _parse(arguments)
    seeds = [chosen.seed] if chosen.seed is not None else range(chosen.first, chosen.first + chosen.seeds)
    found = _run_all(list(seeds), chosen)
    digests, totals = hashlib.sha256(), dict[str, Counter[str]]()
    for seed in seeds:
        one = found[seed]
        digests.update(one["digest"].encode())
        for kind, counts in one["counted"].items():
            totals.setdefault(kind, Counter()).update(counts)
    failed = [seed for seed in seeds if found[seed]["error"]]
    for kind, counts in totals.items():
        print(f"{kind}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print(f"{len(seeds)} seeds of {chosen.steps} steps, {len(failed)} broken: {failed}")
    print(found[seeds[0]]["digest"] if len(seeds) == 1 else digests.hexdigest()[:32])
    return 1 if failed else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="the one seed to run")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    parser.add_argument("--skip", default="", help="steps, by commas, in which only time passes")
    parser.add_argument("--trace", action="store_true", help="print what happened")
    return parser.parse_args(arguments)


def _run_all(seeds: list[int], chosen: argparse.Namespace) -> dict[int, Found]:
    """Run each seed in a child of its own, so many at a time; print what comes of each."""
    gc.freeze()
    waiting, running, found = list(seeds), dict[int, tuple[int, Any]](), dict[int, Found]()
    while waiting or running:
        while waiting and len(running) < chosen.jobs:
            seed = waiting.pop(0)
            running[seed] = _fork(seed, chosen)
        seed = min(running)
        pid, pipe = running.pop(seed)
        with pipe:
            text = pipe.read()
        os.waitpid(pid, 0)
        found[seed] = json.loads(text) if text else {"error": "the child died", "digest": "", "counted": {}}
        _print(seed, found[seed], chosen)
    return found


def _print(seed: int, one: Found, chosen: argparse.Namespace) -> None:
    for line in one.get("trace", ()):
        print(line)
    print(f"seed {seed}: {one['error'] or 'ok'} {one['digest']}", flush=True)
    if one["error"]:
        print(f"replay: python -m tests.simulation --seed {seed} --steps {chosen.steps} --trace", flush=True)


def _fork(seed: int, chosen: argparse.Namespace) -> tuple[int, Any]:
    """Begin a seed in a child. Returns its pid, and where to read what it found."""
    sys.stdout.flush()
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid:
        os.close(ours)
        return pid, os.fdopen(theirs)
    os.close(theirs)
    sys.unraisablehook = lambda unraisable: None  # what a dead process leaves behind is nobody's
    one = run_one(seed, chosen.steps, skip=frozenset(int(each) for each in chosen.skip.split(",") if each))
    if not chosen.trace:
        del one["trace"]
    with os.fdopen(ours, "w") as pipe:
        pipe.write(json.dumps(one))
    os._exit(0)


def run_one(seed: int, steps: int, *, skip: frozenset[int] = frozenset()) -> Found:
    """Run one seed here. Returns what it broke (empty: nothing), its hash, what happened how often, and its
    trace."""
    simulation = Simulation(seed, skip=skip)
    error = ""
    try:
        simulation.run(steps)
    except Broken as exc:
        error = str(exc)
    except Exception:
        error = traceback.format_exc()
    return {
        "error": error,
        "digest": simulation.digest,
        "counted": simulation.counted(),
        "trace": simulation.machine.trace,
    }
