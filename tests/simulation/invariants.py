"""What is always true, and what becomes true once faults have ended.

The real store is read from outside, as it is on disk, and the real workers are looked into: what they counted
is the truth that control's sums and the judge's evidence are held against.
"""

import sqlite3
from collections import Counter, deque
from types import SimpleNamespace
from typing import Any, Final, Protocol

import msgspec

from gateway.control.rollouts.rows import progress_of
from gateway.core.rollout.state import JUDGED, Rollout
from tests.simulation.disk import IN_ONE_PROCESS
from tests.simulation.world import USERS

ENDED: Final = ("completed", "rolled_back", "failed")
STATUSES: Final = {
    "new": {"pending", "testing", "rolling", "paused", *ENDED},  # what passed between two looks is not seen
    "pending": {"testing", "rolling", "paused", *ENDED},
    "testing": {"rolling", "paused", *ENDED},
    "rolling": {"paused", "completed", "rolled_back"},
    "paused": {"rolling", "completed", "rolled_back"},
}
WORKER_HARM_S: Final = 3.5
"""How long after a worker's death clients may still find out: it held their connection, or they wait in a
socket which a control that is stopped, for 3.1 s at most, lends to nobody, and that is killed then.
"""
LONGEST_ANSWER_S: Final = 25.0
"""Longer than any pause of a service and all attempts of a request together; one held in vain takes 30 s."""
DRAINED_S: Final = 4.0
"""What drains has been told by then until when, and has no tunnel left so much later."""
REPORTED_S: Final = 0.1
"""What a worker has counted is with control by then."""
ON_ITS_WAY_S: Final = 0.05
"""How long that may be on its way."""
LOOKS: Final = 40
"""Steps that are remembered of a worker: some take no time."""
CALM_S: Final = 1.0
"""How long links and processes are as they should be before that is asked of them."""


STICKY_USERS: Final = (*USERS, *(b"nobody %d" % number for number in range(50)))
"""Those who ask, and others: a worker knows where each of them would go."""


class Owner(Protocol):
    """The simulation."""

    machine: Any
    system: Any
    actions: Any
    clients: Any
    visitors: Any
    hook: Any
    upstreams: dict[str, Any]


class Invariants:
    """Looks, and remembers what it saw."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.broken: list[str] = []
        self.transitions: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.harm_until = 0.0
        """Until then connections may be lost: a worker died."""
        self.ordered: set[str] = set()
        """Deployments that somebody gave an order to."""
        self._returned: set[str] = set()
        """Deployments whose rollback was answered as stored: they never go forward again."""
        self.carried: dict[str, list[Any]] = {}
        """Deployments whose rollback was answered as not stored yet, and the workers that carry it."""
        self._unmixed: set[str] = set()
        """Deployments of which only one version serves at a time."""
        self._cohorts: dict[str, dict[bytes, tuple[int, int]]] = {}
        """By deployment and user: the largest share at which they had the old version, and the least at which
        they had the new one."""
        self._cohorts_seen_at: dict[int, tuple[Any, int]] = {}
        """By pid: the service, as its table has it, and the share at which a worker was last asked."""
        self._weighed: dict[int, tuple[Any, int, int]] = {}
        """By pid: the table whose weights were looked at, and how many rollouts were known of then."""
        self._draining_since: dict[tuple[int, int], float] = {}
        """By pid and object: when an endpoint was first seen to drain."""
        self._connection: sqlite3.Connection | None = None
        self._version = -1
        self._changes = -1
        self._read_progress = ("", b"", 0, 0)
        """A deployment's progress, as it was read last, and what it says: see `_counted`."""
        self.statuses: dict[str, str] = {}
        """Of deployments, as they were stored last."""
        self.open_at: dict[str, tuple[str, int]] = {}
        """Phase and percent of deployments, as they were stored while they were open."""
        self._mark = (0, 0)
        """Epoch and number of the newest commit."""
        self._before: dict[str, int] = {}
        """By deployment: answers of its new version that were counted before it began."""
        self._answered: dict[int, deque[tuple[float, int]]] = {}
        """By pid of a worker: when it was looked at last, and how many requests it had answered by then."""
        self.unreported: dict[int, int] = {}
        """By pid of a worker that was killed while all else was well: how much it may have taken along."""

    # -- the store, from outside

    def read(self) -> None:
        """Read the store, if it has changed."""
        if self._connection is None:
            path = self.owner.system.folder / "gateway.db"
            if not path.exists():
                return
            address = f"file:{path}?mode=ro{IN_ONE_PROCESS}"
            self._connection = sqlite3.connect(address, uri=True, isolation_level=None)
        changes = self.owner.machine.disk.changes
        if changes == self._changes:
            return
        self._changes = changes
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return
        self._version = version
        self._connection.execute("BEGIN")
        try:
            self._read_commit()
            self._read_deployments()
        except sqlite3.OperationalError as exc:
            if "no such table" not in str(exc):
                raise
        finally:
            self._connection.execute("COMMIT")

    def rows(self, query: str, *parameters: object) -> list[Any]:
        assert self._connection is not None
        return self._connection.execute(query, parameters).fetchall()

    def _read_commit(self) -> None:
        """One writer, in the newest epoch, each commit with a mark of its own."""
        meta = dict(self.rows("SELECT key, value FROM gateway_meta WHERE key IN ('commit', 'epoch')"))
        if "commit" not in meta:
            return
        epoch, number = map(int, bytes(meta["commit"]).split(b"."))
        if epoch > int(meta["epoch"]) or (epoch, number) < self._mark:
            self.broken.append(f"commit {epoch}.{number} after {self._mark}, at epoch {meta['epoch']!r}")
        self._mark = (epoch, number)

    def _read_deployments(self) -> None:
        for key, status in self.rows("SELECT id, status FROM gateway_deployment ORDER BY created_at, id"):
            self._see(key, status)
        columns = "id, status, state, progress, to_version_id"
        slots = ", ".join("?" * len(ENDED))
        query = f"SELECT {columns} FROM gateway_deployment WHERE status NOT IN ({slots})"
        found = self.rows(query, *ENDED)
        if len(found) > 1:
            self.broken.append(f"{len(found)} deployments of one service are open")
        for key, _, state, progress, new in found:
            self._see_open(key, msgspec.json.decode(state, type=Rollout), progress, new)

    def _see(self, key: str, status: str) -> None:
        was = self.statuses.get(key, "new")
        if was == status:
            return
        self.statuses[key] = status
        self.transitions[f"{was}>{status}"] += 1
        if status in ENDED:
            self.ends[status] += 1
        if status not in STATUSES.get(was, set()):
            self.broken.append(f"deployment {key} went from {was} to {status}")
        if status == "completed" and (key in self._returned or self.is_carried(key)):
            self.broken.append(f"deployment {key} was rolled back, and is completed")

    def _see_open(self, key: str, state: Rollout, progress: bytes, new: str) -> None:
        was, _ = self.open_at.get(key, ("new", 0))
        if was != state.phase:
            self.transitions[f"phase {was}>{state.phase}"] += 1
        self.open_at[key] = state.phase, state.percent
        if state.plan.strategy != "canary" and not state.plan.rules.mixes and key not in self.ordered:
            self._unmixed.add(key)
        if key in self._returned and (state.percent or state.phase != "reverting"):
            self.broken.append(f"deployment {key} was rolled back, and is {state.phase} at {state.percent} %")
        if state.weights[state.old] + state.weights[state.new] != 100:
            self.broken.append(f"deployment {key} has weights {state.weights}")
        if not progress:
            return
        if self._read_progress[:2] != (key, progress):
            self._read_progress = (key, progress, *_counted(key, progress, new))
        counted, gathered = self._read_progress[2:]
        query = (
            "SELECT coalesce(sum(answers), 0) FROM gateway_window WHERE deployment_id = ? AND version_id = ?"
        )
        ((stored,),) = self.rows(query, key, new)
        before = self._before.setdefault(key, counted - stored - gathered)
        if counted - stored - gathered != before:
            self.broken.append(
                f"deployment {key}: {counted} answers of the new version were counted, {before} of them "
                f"before, and {stored} + {gathered} made windows"
            )
        judged = state.evidence.new.answers
        if key not in self.ordered and state.phase in JUDGED and counted - before != judged:
            self.broken.append(
                f"deployment {key}: {counted} answers were counted, {before} before, {judged} are evidence"
            )

    def open_deployment(self) -> str | None:
        """Return the id of the open one, as stored."""
        self.read()
        return next((key for key, status in self.statuses.items() if status not in ENDED), None)

    def is_moving(self) -> bool:
        """Whether a rollout goes on by itself, as stored."""
        self.read()
        return any(status not in (*ENDED, "paused") for status in self.statuses.values())

    def last_deployment(self) -> str | None:
        """Return the id of the newest, as stored."""
        return next(reversed(self.statuses), None)

    def rolled_back(self, key: str, status: int, body: Any) -> None:
        """Somebody asked for a rollback, and was answered."""
        if status == 200:
            self._returned.add(key)
        elif status == 202 and body["kept"]:
            marks = [(process, worker.live_table.marks()) for process, worker in self.workers()]
            carriers = [process for process, found in marks if any(mark.deployment == key for mark in found)]
            self.carried[key] = carriers
            if not carriers and self.owner.machine.now > self.harm_until and not self._is_returning(key):
                self.broken.append(f"the rollback of {key} was answered 202, and nobody knows of it")

    def _is_returning(self, key: str) -> bool:
        """Whether a deployment's rollback is stored after all."""
        self.read()
        return self.statuses[key] in ENDED or self.open_at[key][0] == "reverting"

    def is_carried(self, key: str) -> bool:
        """Whether somebody must know of a rollback that was not stored when it was answered.

        Workers that leave in order hand on what they know; of those that were killed nobody can ask.
        """
        workers = self.carried.get(key, [])
        return bool(workers) and not any(each.is_dead and each.exit_code is None for each in workers)

    # -- the workers

    def workers(self) -> list[tuple[Any, Any]]:
        system = self.owner.system
        found = [(process, system.planes.get(process.pid)) for process in system.alive_workers()]
        return [(process, worker) for process, worker in found if worker is not None]

    def _look_into_workers(self) -> None:
        for process, worker in self.workers():
            table = worker.live_table
            self._look_at_weights(process, table.current)
            for service in table.current.services.values():
                if service.sticky is not None and service.rollout is not None:
                    self._look_at_cohorts(process, service)
            for endpoint in table.endpoints():
                if endpoint.in_flight < 0 or endpoint.streams < 0:
                    self.broken.append(f"{process}: {endpoint.in_flight} in flight at {endpoint.key}")
            for counts in table.counts.values():
                if counts.in_flight < 0:
                    self.broken.append(f"{process}: {counts.in_flight} in flight of {counts.version}")
            looks = self._answered.setdefault(process.pid, deque(maxlen=LOOKS))
            looks.append((self.owner.machine.now, answered_by(worker)))
            if worker.plane.tunnels.open:
                self._look_at_tunnels(process, worker)

    def _look_at_weights(self, process: Any, table: Any) -> None:
        """Look at a table once, and again when more is known of what must hold in it: it never changes."""
        known = (table, len(self._unmixed), len(self.ordered))
        if self._weighed.get(process.pid) == known:
            return
        self._weighed[process.pid] = known
        for service in table.services.values():
            weights = {each.id: each.weight for each in service.versions if each.weight}
            if sum(weights.values()) not in (0, 100):
                self.broken.append(f"{process} serves {service.name} by weights {weights}")
            if service.rollout in self._unmixed - self.ordered and len(weights) > 1:
                self.broken.append(f"{process} mixes versions in {service.rollout}: {weights}")

    def _look_at_cohorts(self, process: Any, service: Any) -> None:
        """Who has seen the new version keeps it while its share only grows, at every worker."""
        new = next((each for each in service.versions if each.id == service.new), None)
        usable = [each for each in service.versions if each.share]
        if new is None or new not in usable or len(usable) != 2:
            return
        at = (service, new.share)
        if self._cohorts_seen_at.get(process.pid) == at:
            return
        self._cohorts_seen_at[process.pid] = at
        seen = self._cohorts.setdefault(service.rollout, {})
        for user in STICKY_USERS:
            old_at, new_at = seen.get(user, (0, 10_001))
            if service.choose(0.0, user) is new:
                new_at = min(new_at, new.share)
            else:
                old_at = max(old_at, new.share)
            seen[user] = old_at, new_at
            if new_at <= old_at:
                self.broken.append(
                    f"{process}: {user!r} had the new version at {new_at} of 10,000, the old one at {old_at}"
                )

    def _look_at_tunnels(self, process: Any, worker: Any) -> None:
        """What drains lets its tunnels end, in time."""
        now = self.owner.machine.now
        draining = {each.key: each for each in worker.live_table.endpoints() if each.draining}
        if process.stopped_until > now - DRAINED_S:
            return
        for tunnel in worker.plane.tunnels.open:
            endpoint = draining.get(tunnel.key)
            if endpoint is None:
                continue
            since = self._draining_since.setdefault((process.pid, id(endpoint)), now)
            over_at = worker.plane.draining._endpoints_over_at.get(endpoint, since)
            if now - over_at > DRAINED_S:
                self.broken.append(f"{process}: a tunnel to {tunnel.key}, which drains since {since:.1f}")

    # -- clients

    def visited(self, visitor: Any, how: str) -> None:
        """A client's WebSocket has ended."""
        now = self.owner.machine.now
        self._look_for_workers()
        if how == "goodbye 1012" and not self._is_replaced(visitor.version):
            self.broken.append(
                f"visitor {visitor.number} was sent away from {visitor.version}, which goes on"
            )
        is_harmed = now <= max(self.harm_until, self.owner.actions.upstreams_bad_until)
        if how in ("cut", "refused") and not is_harmed and not self._was_stopped(now):
            self.broken.append(f"visitor {visitor.number} of {visitor.version} was {how}, without a reason")

    def _is_replaced(self, name: str) -> bool:
        """Whether some worker is rid of an endpoint of a version, or is about to be.

        One that was called back has a successor, and its own tunnels end all the same.
        """
        up, now = self.owner.upstreams[name], self.owner.machine.now
        if up.has_moved:
            return True
        for pid, worker in self.owner.system.planes.items():
            process = self.owner.machine.processes[pid]
            if process.is_dead and process.died_at < now - CALM_S:
                continue
            if any(endpoint.url == up.url for endpoint in worker.plane.draining._endpoints_over_at):
                return True
            for service in worker.live_table.current.services.values():
                version = service.named(name)
                if version is None or version.draining:
                    return True
        return False

    def _was_stopped(self, now: float) -> bool:
        return any(each.stopped_until > now - DRAINED_S for each in self.owner.system.workers.values())

    def settled(self, request: Any) -> None:
        """A request of a client has ended."""
        took_s = self.owner.machine.now - request.at
        if took_s > LONGEST_ANSWER_S:
            self.broken.append(f"request {request.number} took {took_s:.1f} s, and was {request.outcome}")
        self._look_for_workers()
        lost = request.outcome in ("reset", "closed", "torn", "refused")
        if lost and self.owner.machine.now > self.harm_until and not request.may_fail:
            self.broken.append(f"request {request.number} ended as {request.outcome}, and no worker had died")

    def _look_for_workers(self) -> None:
        """With no worker left, and a control that cannot start, nobody is served."""
        if not self.owner.system.alive_workers():
            self.harm_until = self.owner.machine.now + WORKER_HARM_S

    def died(self, process: Any) -> None:
        """A worker has been killed."""
        now = self.owner.machine.now
        self.harm_until = max(self.harm_until, now + WORKER_HARM_S)
        plane = self.owner.system.planes.get(process.pid)
        if plane is not None and self._is_calm(process):
            since = now - REPORTED_S - ON_ITS_WAY_S
            looks = self._answered.get(process.pid, ())
            reported = max((answered for at, answered in looks if at <= since), default=0)
            self.unreported[process.pid] = answered_by(plane) - reported

    def _is_calm(self, worker: Any) -> bool:
        """Tell whether nothing has kept a worker from reporting to control for a while."""
        since, system = self.owner.machine.now - CALM_S, self.owner.system
        controls = [self.owner.machine.processes[pid] for pid in system.controls]
        plane = system.planes.get(worker.pid)
        return (
            plane is not None
            and plane.uplink.is_connected
            and system.control is not None
            and system.control._unready is None
            and self.owner.actions.links_late_until < since
            and all(each.stopped_until < since for each in (worker, *controls))
            and not any(each.is_dead and each.died_at >= since for each in controls)
        )

    # -- all of it

    def always(self) -> None:
        """Look at everything that is true at any time."""
        self.read()
        self._look_for_workers()
        self._look_into_workers()


def answered_by(worker: Any) -> int:
    """Return how many requests a worker has counted."""
    answered = 0
    for counts in worker.live_table.counts.values():
        if counts._plain:
            counts.fold()
        answered += sum(counts.requests.values())
    return answered


def _counted(key: str, progress: bytes, new: str) -> tuple[int, int]:
    """Return how many answers of the new version are counted, and how many of them wait for a row."""
    found = progress_of(SimpleNamespace(id=key, progress=progress))  # type: ignore[arg-type]
    assert found is not None
    part, counted = found.counted, 0
    if new in part.versions:
        counted += sum(cell.answers for cell in part.versions[new].judged.values())
    for versions in part.newest.values():
        if new in versions:
            counted += sum(each.answers for each in versions[new].judged)
    gathered = found.row.gathered
    return counted, sum(cell.answers for cell in gathered.new) if gathered else 0
