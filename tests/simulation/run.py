"""One seed: a machine, a gateway on it, a world around it, and what is done to them step by step.

A step is one action of the grammar. What is drawn comes from the seed alone, so the trace of a seed is the
same in every run; its hash says so.
"""

import hashlib
from collections import Counter
from typing import Any, Final

from tests.simulation import machine
from tests.simulation.actions import Actions
from tests.simulation.disk import Disk
from tests.simulation.hook import Hook
from tests.simulation.invariants import Invariants
from tests.simulation.loop import Loop
from tests.simulation.machine import Machine
from tests.simulation.network import Network
from tests.simulation.rest import Rest
from tests.simulation.system import ADMIN, HOOK, LISTEN, System, install
from tests.simulation.visitors import Visitors
from tests.simulation.world import Clients, Operator, Upstream

WARM_UP_S: Final = 2.0
CALM_S: Final = 5.0
"""How long everything is left alone, again and again, until it is at rest."""
REST_S: Final = 60.0
"""It has come to rest by then."""
LONG_RESTS: Final = 10
"""In one of so many seeds everything is left alone for all of that time first: rest is to last."""
LONGEST_S: Final = 500.0
"""How long a rollout may then take to end, or to ask a person: three asks of it, and waits for webhooks."""


class Broken(Exception):
    """Something that is always true was not."""


class Simulation:
    """A seed in the making."""

    def __init__(self, seed: int, *, skip: frozenset[int] = frozenset()) -> None:
        """skip: steps that only let time pass: for finding the few that matter."""
        self.seed = seed
        self.skip = skip
        self.machine = machine.current = Machine(seed)
        self.machine.network = Network(self.machine)  # type: ignore[attr-defined]
        self.machine.disk = Disk()  # type: ignore[attr-defined]
        self.loop = Loop(self.machine)
        chance = self.machine.chance
        self.upstreams: dict[str, Upstream] = {}
        first = self.add_upstream()
        self.system = System(
            self.machine,
            workers=2 + chance.randrange(2),
            url=first.url,
            is_sticky=chance.random() < 0.4,
            is_asked=chance.random() < 0.3,
        )
        self.hook = Hook(self.machine, HOOK)
        self.clients = Clients(self.machine, LISTEN)
        self.visitors = Visitors(self.machine, LISTEN)
        self.operator = Operator(self.machine, ADMIN, self._token)
        self.actions = Actions(self)
        self.invariants = Invariants(self)
        self.rest = Rest(self, self.invariants)
        self.clients.on_settled = self.invariants.settled
        self.visitors.on_ended = self.invariants.visited
        self.system.on_worker_death = self.invariants.died
        self.step = 0
        self.known: dict[str, Any] = {}
        install(self.system)

    def add_upstream(self) -> Upstream:
        """Start the process of a new version."""
        number = len(self.upstreams) + 1
        up = Upstream(self.machine, number)
        self.upstreams[up.name] = up
        return up

    def _token(self) -> str:
        path = self.system.folder / "admin.token"
        return path.read_text("utf-8").strip() if path.exists() else "none"

    def run(self, steps: int) -> None:
        """Take so many steps, let it come to rest, and hold it against what must then be true.

        Raises Broken.
        """
        try:
            self.system.ensure_control()
            self.pass_time(WARM_UP_S)
            self.clients.start()
            self.visitors.start()
            for self.step in range(1, steps + 1):
                self._take_step()
            self.step = steps + 1
            self._come_to_rest()
        finally:
            self.actions.stop_faults()
            self.system.is_wanted = False
            self.system.close()

    def _take_step(self) -> None:
        name, act = self.actions.draw()
        if self.step in self.skip:
            self.pass_time(0.1)
            self.check()
            return
        self.machine.note("step", self.step, name)
        self.actions.taken[name] += 1
        act()
        self.check()

    def _come_to_rest(self) -> None:
        self.machine.note("rest")
        self.actions.stop_faults()
        ends_at = self.machine.now + LONGEST_S
        self.pass_time(REST_S if self.seed % LONG_RESTS == 0 else CALM_S)
        while self.invariants.is_moving() and self.machine.now < ends_at:
            self.pass_time(CALM_S)
        self.check()
        self.visitors.close()
        ends_at = self.machine.now + REST_S
        while True:
            self.clients.close()
            self.pass_time(CALM_S)
            self.check()
            found = self.rest.look()
            if not found or self.machine.now >= ends_at:
                break
        self.invariants.broken += found
        self._complain()

    def pass_time(self, seconds: float) -> None:
        self.loop.run_until(self.machine.now + seconds)

    def check(self) -> None:
        """Look whether everything that is always true still is."""
        self.invariants.always()
        self._complain()

    def _complain(self) -> None:
        found = [
            *self.invariants.broken,
            *self.clients.complaints,
            *self.hook.complaints,
            *self.loop.failures,
        ]
        if found:
            raise Broken(f"step {self.step}, at {self.machine.now:.3f}: {found[0]}")

    @property
    def digest(self) -> str:
        """Return the hash of the trace."""
        return hashlib.sha256("\n".join(self.machine.trace).encode()).hexdigest()[:32]

    def counted(self) -> dict[str, Counter[str]]:
        """Return how often each thing happened."""
        return {
            "actions": self.actions.taken,
            "faults": self.actions.faults,
            "transitions": self.invariants.transitions,
            "ends": self.invariants.ends,
            "outcomes": self.clients.outcomes,
            "tunnels": self.visitors.outcomes,
            "webhooks": self.hook.outcomes,
        }
