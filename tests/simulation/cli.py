"""The command line of the simulation.

Each seed runs in a child that is forked from a parent which has only imported: nothing that one leaves behind
in a module reaches the next, and a seed alone does what it did among others.
"""

import argparse
import gc
import hashlib
import json
import os
import select
import sys
import traceback
from collections import Counter
from typing import Any, Final

from tests.simulation import mutants
from tests.simulation.actions import ACTIONS, FAULTS
from tests.simulation.run import Broken, Simulation

STEPS: Final = 2_000
SWEEP: Final = 200
"""So many seeds must show everything."""
EVERYTHING: Final = (
    *(*ACTIONS, *FAULTS, "completed", "rolled_back", "failed"),
    *("rolling>paused", "paused>rolling", "rolling>completed", "rolling>rolled_back"),
    *("paused>rolled_back", "phase paused>ending"),
)
"""What is to happen in the seeds of a sweep, each at least once."""

Found = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Run the seeds asked for. Returns 1 if one of them broke something."""
    chosen = _parse(arguments)
    if chosen.mutants:
        return _check_mutants(chosen)
    seeds = [chosen.seed] if chosen.seed is not None else range(chosen.first, chosen.first + chosen.seeds)
    found = _run_all(list(seeds), chosen)
    seeds = [seed for seed in seeds if seed in found]
    digests, totals = hashlib.sha256(), dict[str, Counter[str]]()
    for seed in seeds:
        one = found[seed]
        digests.update(one["digest"].encode())
        for kind, counts in one["counted"].items():
            totals.setdefault(kind, Counter()).update(counts)
    failed = [seed for seed in seeds if found[seed]["error"]]
    if chosen.shrink and failed:
        _shrink(failed[0], found[failed[0]]["steps"], chosen)
    for kind, counts in totals.items():
        print(f"{kind}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    never = [
        name for name in dict.fromkeys(EVERYTHING) if not any(counts[name] for counts in totals.values())
    ]
    print(f"never happened: {', '.join(never) or 'nothing'}")
    print(f"{len(seeds)} seeds of {chosen.steps} steps, {len(failed)} broken: {failed}")
    print(found[seeds[0]]["digest"] if len(seeds) == 1 else digests.hexdigest()[:32])
    return 1 if failed or (never and len(seeds) >= SWEEP) else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="the one seed to run")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    parser.add_argument("--skip", default="", help="steps, by commas, in which only time passes")
    parser.add_argument("--stop", action="store_true", help="begin no further seed once one has failed")
    parser.add_argument("--shrink", action="store_true", help="find the few steps that a failure needs")
    parser.add_argument(
        "--mutant", choices=sorted(mutants.MUTANTS | mutants.HARD), help="with a defect put into the gateway"
    )
    parser.add_argument("--mutants", action="store_true", help="see that each of them is found")
    parser.add_argument("--hard", action="store_true", help="those that are seldom found, too")
    parser.add_argument("--trace", action="store_true", help="print what happened")
    return parser.parse_args(arguments)


def _run_all(seeds: list[int], chosen: argparse.Namespace) -> dict[int, Found]:
    """Run each seed in a child of its own, so many at a time; print what comes of each, in their order."""
    gc.freeze()
    waiting, running, found = list(seeds), dict[int, tuple[int, Any]](), dict[int, Found]()
    unsaid = list(seeds)
    while waiting or running:
        while waiting and len(running) < chosen.jobs:
            seed = waiting.pop(0)
            running[seed] = _fork(seed, chosen)
        ended, _, _ = select.select([pipe for _, pipe in running.values()], [], [])
        for seed in [seed for seed, (_, pipe) in running.items() if pipe in ended]:
            found[seed] = _collect(*running.pop(seed))
            if chosen.stop and found[seed]["error"]:
                waiting.clear()
        while unsaid and (unsaid[0] in found or not (waiting or running)):
            seed = unsaid.pop(0)
            if seed in found:
                _print(seed, found[seed], chosen)
    return found


def _collect(pid: int, pipe: Any) -> Found:
    """Return what a child has found."""
    with pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else {"error": "the child died", "digest": "", "counted": {}, "steps": 0}


def _check_mutants(chosen: argparse.Namespace) -> int:
    """Run the seeds with each defect until one finds it, so many defects at a time.

    The seed that found it last comes first. Returns 1 if none finds some.
    """
    seeds = list(range(chosen.first, chosen.first + chosen.seeds))
    waiting = {
        name: sorted(seeds, key=lambda seed: seed != mutants.FOUND_BY.get(name))
        for name in (mutants.MUTANTS | mutants.HARD if chosen.hard else mutants.MUTANTS)
    }
    running: dict[str, tuple[int, int, Any]] = {}
    missed = 0
    while waiting or running:
        for name in [name for name in waiting if name not in running][: chosen.jobs - len(running)]:
            seed = waiting[name].pop(0)
            running[name] = (seed, *_fork(seed, argparse.Namespace(**{**vars(chosen), "mutant": name})))
        ended, _, _ = select.select([pipe for *_, pipe in running.values()], [], [])
        for name in [name for name, (*_, pipe) in running.items() if pipe in ended]:
            seed, *child = running.pop(name)
            error = _collect(*child)["error"]
            if error or not waiting[name]:
                del waiting[name]
                missed += not error
                why = f"seed {seed}: {error.strip().splitlines()[-1]}" if error else "NOT FOUND"
                print(f"{name}: {why}", flush=True)
    return 1 if missed else 0


def _shrink(seed: int, steps: int, chosen: argparse.Namespace) -> None:
    """Leave out steps, by halves and then one by one, as long as the seed still fails; print what is left.

    A step that is left out only lets time pass; what is drawn behind it may become something else.
    """
    acting = [int(step) for step in range(1, steps + 1)]
    skipped: set[int] = set()
    size = max(1, len(acting) // 2)
    while size:
        for start in range(0, len(acting), size):
            tried = skipped | set(acting[start : start + size])
            if tried != skipped and _fails(seed, steps, tried, chosen):
                skipped = tried
        acting = [step for step in acting if step not in skipped]
        size = size // 2 if size > 1 else 0
    print(f"seed {seed} still fails with steps {acting} of {steps} alone")
    text = ",".join(map(str, sorted(skipped)))
    print(f"replay: python -m tests.simulation --seed {seed} --steps {steps} --skip {text} --trace")


def _fails(seed: int, steps: int, skipped: set[int], chosen: argparse.Namespace) -> bool:
    tried = argparse.Namespace(**{**vars(chosen), "steps": steps, "trace": False})
    tried.skip = ",".join(map(str, skipped))
    pid, pipe = _fork(seed, tried)
    with pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return bool(text) and bool(json.loads(text)["error"])


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
    if chosen.mutant:
        (mutants.MUTANTS | mutants.HARD)[chosen.mutant]()
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
        "steps": min(simulation.step, steps),
        "digest": simulation.digest,
        "counted": simulation.counted(),
        "trace": simulation.machine.trace,
    }
