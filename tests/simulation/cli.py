"""The command line of the simulation."""

import argparse
import hashlib
import sys
import traceback
from collections import Counter

from tests.simulation.run import Broken, Simulation

STEPS = 2_000


def main(arguments: list[str]) -> int:
    """Run the seeds asked for. Returns 1 if one of them broke something."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="the one seed to run")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--trace", action="store_true", help="print what happened")
    chosen = parser.parse_args(arguments)
    seeds = [chosen.seed] if chosen.seed is not None else range(chosen.first, chosen.first + chosen.seeds)
    sys.unraisablehook = lambda unraisable: None  # what a dead process leaves behind is nobody's
    digests, failed = hashlib.sha256(), 0
    totals: dict[str, Counter[str]] = {}
    digest = ""
    for seed in seeds:
        simulation = Simulation(seed)
        error = _run(simulation, chosen.steps)
        if chosen.trace:
            print("\n".join(simulation.machine.trace))
        for kind, counts in simulation.counted().items():
            totals.setdefault(kind, Counter()).update(counts)
        digest = simulation.digest
        digests.update(digest.encode())
        print(f"seed {seed}: {error or 'ok'} {digest}", flush=True)
        failed += bool(error)
        if error:
            print(f"replay: python -m tests.simulation --seed {seed} --steps {chosen.steps} --trace")
    for kind, counts in totals.items():
        print(f"{kind}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print(digest if len(seeds) == 1 else digests.hexdigest()[:32])
    return 1 if failed else 0


def _run(simulation: Simulation, steps: int) -> str:
    """Return what broke; empty: nothing."""
    try:
        simulation.run(steps)
    except Broken as exc:
        return str(exc)
    except Exception:
        return traceback.format_exc()
    return ""
