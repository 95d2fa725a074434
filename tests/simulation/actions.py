"""The grammar: what may happen at a step, how likely it is, and how long a fault lasts."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from tests.simulation.people import Owner, People, full

ACTIONS: Final = (
    "time",
    "release",
    "order",
    "two operators",
    "rollback nobody stores",
    "rollback at the end",
    "rollback amid an upgrade",
    "freeze",
    "hold",
    "reload",
    "upgrade",
    "kill control",
    "kill worker",
    "kill template",
    "stop control",
    "stop worker",
    "cut link",
    "late link",
    "slow commits",
    "full disk",
    "commits fail",
    "commits seem to fail",
    "fsyncs fail",
    "bad upstream",
    "dead upstream",
    "silent upstream",
    "clients leave",
    "burst",
    "clock jump",
    "names change",
)
"""The grammar's."""
FAULTS: Final = (
    *(
        "kill control",
        "kill worker",
        "kill template",
        "stop control",
        "stop worker",
        "cut link",
        "late link",
        "slow commits",
    ),
    *(
        "full disk",
        "commits fail",
        "commits seem to fail",
        "fsyncs fail",
        "dead upstream",
        "silent upstream",
        "clients leave",
    ),
    *("burst", "clock jump", "names change", "upstream stalls", "upstream resets", "upstream garbage"),
    *("upstream half_closes", "upstream slow"),
)
"""All there are."""
STRATEGIES: Final = ("canary", "canary", "blue-green", "immediate")
INTENSITIES: Final = (0.3, 1.0, 1.0, 3.0)
"""How often there are faults in a seed, to how often the grammar says."""
LEFT_OUT: Final = 0.3
"""The share of the faults that a seed does without: some defects show only where others do not hide them."""
TIME_S: Final = 0.1
HARM_S: Final = 1.0
"""How much later than its upstream's trouble a client may hear of it."""


class Actions(People):
    """What is drawn, and what is under way of it."""

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner)
        self._intensity = self.chance.choice(INTENSITIES)
        self.taken: Counter[str] = Counter()
        self.links_late_until = 0.0
        """What workers report may be late, or be gone with its link, till then."""
        self.upstreams_bad_until = 0.0
        """Upstreams may cut connections, or not answer, till then."""
        self.grammar: list[tuple[float, str, Callable[[], None]]] = [
            (42.0, "time", self.time),
            (2.5, "release", self.release),
            (1.5, "order", self.order),
            (0.4, "two operators", self.two_operators),
            (0.3, "rollback nobody stores", self.rollback_nobody_stores),
            (0.3, "rollback at the end", self.rollback_at_the_end),
            (0.3, "rollback amid an upgrade", self.rollback_amid_an_upgrade),
            (0.2, "freeze", self.freeze),
            (0.3, "hold", self.hold),
            (0.3, "reload", self.reload),
            (0.2, "upgrade", self.upgrade),
            (0.3, "kill control", self.kill_control),
            (0.4, "kill worker", self.kill_worker),
            (0.2, "kill template", self.kill_template),
            (0.2, "stop control", self.stop_control),
            (0.2, "stop worker", self.stop_worker),
            (0.3, "cut link", self.cut_link),
            (0.3, "late link", self.late_link),
            (0.3, "slow commits", self.slow_commits),
            (0.3, "full disk", self.full_disk),
            (0.3, "commits fail", self.commits_fail),
            (0.3, "commits seem to fail", self.commits_seem_to_fail),
            (0.2, "fsyncs fail", self.fsyncs_fail),
            (0.5, "bad upstream", self.bad_upstream),
            (0.3, "dead upstream", self.dead_upstream),
            (0.2, "silent upstream", self.silent_upstream),
            (0.3, "clients leave", self.clients_leave),
            (0.3, "burst", self.burst),
            (0.2, "clock jump", self.clock_jump),
            (0.2, "names change", self.names_change),
        ]
        self.grammar = [(weight * self._often(name), name, act) for weight, name, act in self.grammar]
        self._total = sum(weight for weight, _, _ in self.grammar)
        self._doomed: dict[Any, int] = {}
        """Processes that die, and after how many more callbacks of theirs."""

    def _often(self, name: str) -> float:
        """Return how much more often than others this seed draws an action."""
        if name not in FAULTS and name != "bad upstream":
            return 1.0
        return 0.0 if self.chance.random() < LEFT_OUT else self._intensity

    def draw(self) -> tuple[str, Callable[[], None]]:
        """Return an action and its name."""
        roll = self.chance.random() * self._total
        for weight, name, act in self.grammar:
            roll -= weight
            if roll < 0:
                return name, act
        return self.grammar[0][1:]

    # -- what happens

    def time(self) -> None:
        self.owner.pass_time(TIME_S)

    def release(self) -> None:
        """Register a new version and start its rollout, unless one is open."""
        if self.owner.invariants.open_deployment() is not None:
            self.time()
            return
        up = self.owner.add_upstream()
        if self.chance.random() < 0.3:
            up.error_share = self.chance.choice([0.2, 0.6, 1.0])
        body = {"serviceName": "shop", "version": up.name, "url": up.url, "shutdownUrl": up.url + "/bye"}
        self.owner.operator.call(
            "POST", "deployment/versions", body, lambda status, _: self._start(up.name, status)
        )

    def _start(self, version: str, status: int) -> None:
        if status != 201:
            return
        strategy = self.chance.choice(STRATEGIES)
        config: dict[str, Any] = {
            "minRequests": 5,
            "warmUp": 0,
            "drainTimeout": 2000,
            "bakeTime": 2000,
            "smokeTests": self.chance.random() < 0.3,
            "autoPause": self.chance.random() < 0.3,
        }
        if self.chance.random() < 0.3:
            config["mix"] = self.chance.random() < 0.7
        if strategy == "canary":
            config["steps"] = self.chance.choice([[50, 100], [10, 50, 100], [25, 100]])
            config["stepInterval"] = self.chance.choice([1000, 3000])
        body = {"serviceName": "shop", "toVersion": version, "strategy": strategy, "config": config}
        self.owner.operator.call("POST", "deployment/start", body)

    # -- processes

    def _doom(self, process: Any) -> None:
        """Kill it at one of its next callbacks: at any await."""
        self._doomed[process] = 1 + int(self.chance.expovariate(1 / 30))
        self.owner.loop.on_turn = self._on_turn
        self.owner.loop.after(1.0, lambda: self._end(process))

    def _on_turn(self, process: Any) -> None:
        left = self._doomed.get(process)
        if left is None:
            return
        if left <= 1:
            self._end(process)
        else:
            self._doomed[process] = left - 1

    def _end(self, process: Any) -> None:
        if self._doomed.pop(process, None) is not None and not self._doomed:
            self.owner.loop.on_turn = None
        process.die()

    def kill_control(self) -> None:
        controls = self.owner.system.alive_controls()
        if controls:
            self.faults["kill control"] += 1
            self._doom(self.chance.choice(controls))

    def kill_worker(self) -> None:
        workers = self.owner.system.alive_workers()
        if workers:
            self.faults["kill worker"] += 1
            self._doom(self.chance.choice(workers))

    def kill_template(self) -> None:
        """The template, or its twin."""
        templates = self.owner.system.alive_templates()
        if templates:
            self.faults["kill template"] += 1
            self.owner.system.kill_soon(self.chance.choice(templates))

    def stop_control(self) -> None:
        self._stop(self.owner.system.alive_controls(), "stop control")

    def stop_worker(self) -> None:
        self._stop(self.owner.system.alive_workers(), "stop worker")

    def _stop(self, processes: list[Any], name: str) -> None:
        if processes:
            self.faults[name] += 1
            process = self.chance.choice(processes)
            process.stopped_until = self.owner.machine.now + 0.1 + 3.0 * self.chance.random()

    # -- the link

    def _links(self) -> list[Any]:
        """Return the workers' ends of their links."""
        found = []
        for process in self.owner.system.alive_workers():
            worker = self.owner.system.planes.get(process.pid)
            channel = worker.uplink._channel if worker is not None else None
            if channel is not None and channel.is_open:
                found.append(process.fds[channel._sock.fileno()])
        return found

    def cut_link(self) -> None:
        links = self._links()
        if links:
            self.faults["cut link"] += 1
            end = self.chance.choice(links)
            error = ConnectionResetError(104, "Connection reset by peer")
            end.hit(error)
            end.peer.hit(error)
            self._trouble_links(1.0)

    def late_link(self) -> None:
        links = self._links()
        if links:
            self.faults["late link"] += 1
            end = self.chance.choice(links)
            end = end if self.chance.random() < 0.5 else end.peer
            end.extra_s = 0.05 + 1.5 * self.chance.random()
            late_s = 0.5 + 2.0 * self.chance.random()
            self.lasting(late_s, lambda: setattr(end, "extra_s", 0.0))
            self._trouble_links(late_s + end.extra_s)

    def _trouble_links(self, seconds: float) -> None:
        self.links_late_until = max(self.links_late_until, self.owner.machine.now + seconds)

    # -- the disk

    def slow_commits(self) -> None:
        self.faults["slow commits"] += 1
        self.owner.machine.disk.slow_s = 0.05 + 1.0 * self.chance.random()
        self.lasting(
            1.0 + 4.0 * self.chance.random(), lambda: setattr(self.owner.machine.disk, "slow_s", 0.0)
        )

    def _fail(self, name: str, failing: Callable[[str], str]) -> None:
        self.faults[name] += 1
        disk = self.owner.machine.disk
        disk.failing = failing
        self.lasting(0.5 + 5.0 * self.chance.random() ** 2, lambda: setattr(disk, "failing", None))

    def full_disk(self) -> None:
        """Whatever writes, fails."""
        self._fail("full disk", full)

    def commits_fail(self) -> None:
        chance = self.chance
        self._fail("commits fail", lambda text: "fails" if text == "COMMIT" and chance.random() < 0.7 else "")

    def commits_seem_to_fail(self) -> None:
        chance = self.chance
        self._fail(
            "commits seem to fail", lambda text: "done" if text == "COMMIT" and chance.random() < 0.7 else ""
        )

    def fsyncs_fail(self) -> None:
        chance = self.chance
        self._fail("fsyncs fail", lambda text: "fails" if text == "FSYNC" and chance.random() < 0.7 else "")

    # -- upstreams and clients

    def _trouble_upstreams(self, seconds: float) -> None:
        self.upstreams_bad_until = max(self.upstreams_bad_until, self.owner.machine.now + seconds + HARM_S)

    def _some_upstream(self) -> Any:
        names = list(self.owner.upstreams)[-3:]
        return self.owner.upstreams[self.chance.choice(names)]

    def bad_upstream(self) -> None:
        up = self._some_upstream()
        up.mood = self.chance.choice(["stalls", "resets", "garbage", "half_closes", "slow"])
        self.faults[f"upstream {up.mood}"] += 1
        bad_s = 0.3 + 2.0 * self.chance.random()
        self._trouble_upstreams(bad_s)
        self.lasting(bad_s, lambda: setattr(up, "mood", "well"))

    def dead_upstream(self) -> None:
        up = self._some_upstream()
        self.faults["dead upstream"] += 1
        up.stop()
        dead_s = 0.5 + 4.0 * self.chance.random()
        self._trouble_upstreams(dead_s)
        self.lasting(dead_s, up.start)

    def silent_upstream(self) -> None:
        """Nothing comes back from its address."""
        up = self._some_upstream()
        self.faults["silent upstream"] += 1
        silent, address = self.owner.machine.network.silent, up.address
        silent.add(address)
        self.lasting(0.5 + 2.0 * self.chance.random(), lambda: silent.discard(address))

    def clients_leave(self) -> None:
        self.faults["clients leave"] += 1
        self.owner.clients.leave_share = 0.5
        self.lasting(1.0, lambda: setattr(self.owner.clients, "leave_share", 0.01))

    def burst(self) -> None:
        self.faults["burst"] += 1
        for _ in range(20):
            self.owner.clients.ask()

    def clock_jump(self) -> None:
        """The time of day; the monotonic clock does not jump."""
        self.faults["clock jump"] += 1
        self.owner.machine.wall_offset += self.chance.choice([-3600.0, -5.0, 5.0, 3600.0])

    def names_change(self) -> None:
        """A name gets another address of the same upstream, or is not found for a while."""
        up = self._some_upstream()
        names = self.owner.machine.network.names
        self.faults["names change"] += 1
        if self.chance.random() < 0.5:
            up.move()
        else:
            found = names.pop(up.host, None)
            if found is not None:
                self.lasting(40.0 * self.chance.random(), lambda: names.setdefault(up.host, found))
