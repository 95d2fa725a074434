"""What becomes true once faults have ended, and no client is connected any more."""

from collections import Counter
from typing import Any, Final, Protocol

from gateway.store.audit import Walk
from gateway.store.tables import AUDIT
from tests.simulation.invariants import ENDED, Invariants

UNSTORED_S: Final = 15.0
"""What a worker that ended had counted is stored by then, if the disk is not full for longer than that."""


class Owner(Protocol):
    """The simulation."""

    machine: Any
    system: Any
    clients: Any
    visitors: Any
    hook: Any
    upstreams: dict[str, Any]


class Rest:
    """Looks at all of it."""

    def __init__(self, owner: Owner, seen: Invariants) -> None:
        """seen: what was seen until then."""
        self.owner = owner
        self._seen = seen
        self.broken: list[str] = []

    def look(self) -> list[str]:
        """Return what is not as it is once faults have ended, and no client is connected."""
        self.broken = []
        self._seen.read()
        for key, status in self._seen.statuses.items():
            if status not in (*ENDED, "paused"):
                self.broken.append(f"deployment {key} is {status} after all faults ended")
        if self.owner.clients.busy:
            self.broken.append(f"requests {sorted(self.owner.clients.busy)} never got an answer")
        self._rest_of_workers()
        self._rest_of_control()
        self._asked_once()
        self._joined_once()
        self._windows_once()
        self._notified()
        self._audit()
        return self.broken

    def _asked_once(self) -> None:
        """What is not idempotent reached an upstream once, whatever became of it (RFC 9110 §9.2.2)."""
        asked: Counter[int] = Counter()
        for up in self.owner.upstreams.values():
            asked += up.served
        for number, times in asked.items():
            if times > 1 and number in self.owner.clients.posted:
                self.broken.append(f"request {number}, a POST, reached upstreams {times} times")

    def _joined_once(self) -> None:
        """Each WebSocket is counted, once."""
        counted = 0
        for worker in self.owner.system.planes.values():
            for counts in worker.live_table.counts.values():
                counts.fold()
                counted += counts.requests.get(("GET", 101), 0)
        agreed = sum(up.joined for up in self.owner.upstreams.values())
        heard = self.owner.visitors.joined
        if not heard <= counted <= agreed:
            self.broken.append(f"{counted} WebSockets were counted, {heard} of {agreed} were heard of")

    def _windows_once(self) -> None:
        """What was counted is evidence in one window: nothing is stored twice."""
        real: Counter[tuple[str, int, int]] = Counter()
        for worker in self.owner.system.planes.values():
            for version_id, counts in worker.live_table.counts.items():
                counts.fold()
                for (generation, share), judged in counts.judged.items():
                    real[version_id, generation, share] += judged.answers
        columns = "version_id, stage, share"
        for *key, stored in self._seen.rows(
            f"SELECT {columns}, sum(answers) FROM gateway_window GROUP BY {columns}"
        ):
            if stored > real[tuple(key)]:
                self.broken.append(
                    f"{stored} answers are in windows of {key}, of which workers counted {real[tuple(key)]}"
                )

    def _notified(self) -> None:
        """Whoever wants to know has been told how each rollout ended."""
        for key, status in self._seen.statuses.items():
            if status in ENDED and (f"deployment.{status}", key) not in self.owner.hook.taken:
                self.broken.append(f"nobody was told that {key} is {status}")
        for key in self._seen.carried:
            if self._seen.is_carried(key) and self._seen.statuses[key] != "rolled_back":
                self.broken.append(f"deployment {key} was rolled back, and is {self._seen.statuses[key]}")

    def _rest_of_workers(self) -> None:
        for process, worker in self._seen.workers():
            for leak in worker.plane.leaks():
                self.broken.append(f"{process}: {leak}")
            idle = sum(len(pool._idle) for pool in worker.plane.pools.open)
            ends = [each for each in process.fds.values() if getattr(each, "peer_name", None)]
            upstream = [
                each for each in ends if isinstance(each.peer_name, tuple) and each.peer_name[1] == 80
            ]
            if idle != len(upstream):
                self.broken.append(f"{process}: {len(upstream)} upstream connections are open, {idle} idle")

    def _rest_of_control(self) -> None:
        control = self.owner.system.control
        if control is None or control._unready is not None:
            self.broken.append("no control is in charge")
            return
        templates = {each.pid for each in self.owner.system.alive_templates()}
        if templates != {control.supervisor.template.pid, control.supervisor.template.spare_pid}:
            self.broken.append(
                f"templates {templates} run, and control knows of {control.supervisor.template.pid}"
            )
        running = len(self.owner.system.workers) and len(self.owner.system.alive_workers())
        if running != control.listeners.slots:
            self.broken.append(f"{running} workers run in {control.listeners.slots} slots")
        (versions,) = self._seen.rows(
            "SELECT count(*) FROM gateway_service_version WHERE draining AND NOT drained"
        )
        if versions[0]:
            self.broken.append(f"{versions[0]} versions still drain")
        self._counts(control)
        self._tables(control)

    def _tables(self, control: Any) -> None:
        """Every worker serves by the newest table."""
        for process, worker in self._seen.workers():
            number = worker.live_table.current.number
            if number != control.components.catalog._number and not worker.is_draining:
                self.broken.append(
                    f"{process} serves by table {number}, of {control.components.catalog._number}"
                )

    def _counts(self, control: Any) -> None:
        """What control has added up is what the workers counted, but for what a killed one took along."""
        kept = {key for (key,) in self._seen.rows("SELECT id FROM gateway_service_version")}
        for version_id, total in control.tally.versions().items():
            if version_id not in kept:
                self.broken.append(f"version {total.version} was deleted, and its counts are back")
            counted = sum(total.requests.values())
            real, lost = 0, 0
            for pid, worker in self.owner.system.planes.items():
                counts = worker.live_table.counts.get(version_id)
                if counts is None:
                    continue
                counts.fold()
                served = sum(counts.requests.values())
                real += served
                lost += self._may_be_lost(self.owner.machine.processes[pid], served)
            if not real - lost <= counted <= real:
                self.broken.append(
                    f"version {total.version}: {counted} requests are counted, workers served {real}"
                )

    def _may_be_lost(self, worker: Any, served: int) -> int:
        """Return how much of what a worker served may be uncounted.

        It was killed: what it had not reported. It ended, and control was killed before it had stored what it
        had counted: all.
        """
        if not worker.is_dead:
            return 0
        killed = [
            self.owner.machine.processes[pid].died_at
            for pid in self.owner.system.controls
            if self.owner.machine.processes[pid].is_dead
        ]
        if any(0 <= at - worker.died_at < UNSTORED_S for at in killed):
            return served
        if worker.exit_code is not None:
            return 0
        return min(served, self._seen.unreported.get(worker.pid, served))

    def _audit(self) -> None:
        walk = Walk()
        for row in self._seen.rows(f"{AUDIT.select} ORDER BY id"):
            if not walk.step(row):
                self.broken.append(f"the audit trail breaks at {walk.broken_at}: {walk.reason}")
                return
