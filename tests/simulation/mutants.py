"""Defects put into the gateway on purpose: what the simulation must find, or it looks in the wrong place.

Each function takes one safeguard away, in the running process alone.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec

from gateway.control import tally
from gateway.control.catalog.catalog import Catalog
from gateway.control.catalog.declared import store_declared
from gateway.control.processes.hub import Hub
from gateway.control.processes.orphans import Orphans
from gateway.control.processes.template import Template
from gateway.control.rollouts import in_force
from gateway.control.rollouts.in_force import InForce
from gateway.control.rollouts.loop import Rollouts
from gateway.control.rollouts.notices import NOTIFIED, Notices
from gateway.control.rollouts.windows import Windows
from gateway.control.tally import Tally
from gateway.control.upstreams.drains import Drains
from gateway.core.resilience.retry import RetryPolicy
from gateway.core.rollout import asking, change, moves
from gateway.core.routing.table import Service
from gateway.errors import StaleEpoch
from gateway.link.counts import VersionCounts
from gateway.store.sqlite import SqliteStore
from gateway.store.transaction import SqliteTransaction
from gateway.worker.admission import Admission
from gateway.worker.pool import Pool
from gateway.worker.reporter import Reporter
from gateway.worker.tunnel.frames import SERVICE_RESTART
from gateway.worker.tunnel.tunnels import Tunnels


def evidence_before_commit() -> None:
    """Windows are consumed when a transaction is made of them, not when it has committed."""
    put: Any = InForce.put

    def consumed(self: Any, tx: Any, running: Any, moved: Any) -> None:
        put(self, tx, running, moved)
        taken(running.windows, moved.windows, moved.open_row)

    taken: Any = Windows.taken
    InForce.put = consumed  # type: ignore[method-assign]
    Windows.taken = lambda self, windows, row: None  # type: ignore[method-assign]


def held_lost_on_resume() -> None:
    """Requests that were held when a service was paused are forgotten when it is resumed."""
    configure: Any = Admission.configure

    def forgetful(self: Any, settings: Any, *, paused: bool) -> None:
        if self.paused and not paused:
            self._waiting.clear()
        configure(self, settings, paused=paused)

    Admission.configure = forgetful  # type: ignore[method-assign]


def rollback_undone_by_a_late_row() -> None:
    """A row that was read before a rollback went ahead of the store takes the weights back."""
    Catalog.put_ahead = lambda self, service, versions: (  # type: ignore[method-assign]
        [self._put_version(each) for each in versions] and None
    )


def drain_not_called_back() -> None:
    """A drain that waited for the store does not look whether it was called back."""
    Drains.call_back = lambda self, version_id: None  # type: ignore[method-assign]


def counted_twice() -> None:
    """A worker that has ended is added up, and kept beside the sum."""
    ended: Any = Tally.on_ended

    def twice(self: Any, incarnation: str) -> None:
        newest = self._newest.get(incarnation)
        ended(self, incarnation)
        if newest is not None:
            self._newest[incarnation] = newest

    Tally.on_ended = twice  # type: ignore[method-assign]


def settled_twice() -> None:
    """What runs at a version is taken off twice when an answer was an error."""
    request: Any = VersionCounts.request

    def twice(self: Any, method: str, status: int, *more: Any) -> None:
        request(self, method, status, *more)
        if status >= 500:
            self.in_flight -= 1

    VersionCounts.request = twice  # type: ignore[method-assign]


def posts_tried_again() -> None:
    """Whatever failed is tried again, a POST too."""
    can_retry: Any = RetryPolicy.can_retry
    RetryPolicy.can_retry = lambda self, **given: bool(  # type: ignore[method-assign]
        can_retry(self, **{**given, "method": "GET", "body_at_hand": True})
    )


def leased_and_lost() -> None:
    """One in twenty connections that come back is neither kept nor closed."""
    give_back: Any = Pool.give_back
    count = 0

    def lossy(self: Any, connection: Any, now: float) -> None:
        nonlocal count
        count += 1
        if count % 20:
            give_back(self, connection, now)

    Pool.give_back = lossy  # type: ignore[method-assign]


def audit_forks() -> None:
    """Every tenth row of the audit trail says that it follows another one."""
    add: Any = SqliteTransaction.add_audit
    count = 0

    def forked(self: Any, entry: Any) -> int:
        nonlocal count
        count += 1
        if count % 10 == 0:
            tail = self._counters.audit
            self._counters.audit = (
                msgspec.structs.replace(tail, hash="0" * 64)
                if (isinstance(tail, msgspec.Struct))
                else tail._replace(hash="0" * 64)
            )
        return int(add(self, entry))

    SqliteTransaction.add_audit = forked  # type: ignore[method-assign]


def orphans_never_drain() -> None:
    """Workers of a dead control are adopted, and serve on beside the new ones."""
    Orphans.drain = lambda self: None  # type: ignore[method-assign]


def no_table_for_who_comes_back() -> None:
    """A worker whose link was cut gets no table with its next HELLO."""
    greet: Any = Hub._greet

    def deaf(self: Any, peer: Any, hello: Any, fds: list[int]) -> None:
        whole = self.whole
        self.whole = None if hello.applied else whole
        greet(self, peer, hello, fds)
        self.whole = whole

    Hub._greet = deaf  # type: ignore[method-assign]


def lost_ack() -> None:
    """Control forgets every third acknowledgement of a table."""
    acknowledged: Any = Hub._acknowledged
    count = 0

    def lossy(self: Any, peer: Any, ack: Any) -> None:
        nonlocal count
        count += 1
        if count % 3:
            acknowledged(self, peer, ack)

    Hub._acknowledged = lossy  # type: ignore[method-assign]


def reported_each_second() -> None:
    """Workers say what they counted once a second: a killed one takes that much along."""
    report: Any = Reporter.report
    calls: Counter[Reporter] = Counter()

    def seldom(self: Reporter, lag_us: int) -> None:
        calls[self] += 1
        if calls[self] % 10 == 0:
            report(self, lag_us)

    Reporter.report = seldom  # type: ignore[method-assign]


def weights_of_the_store_at_a_reload() -> None:
    """A reload does not wait for what has gone ahead of the store, and takes the weights that are stored."""
    Rollouts.has_unstored = property(lambda self: False)  # type: ignore[assignment, method-assign]
    build: Any = Catalog._build

    def as_stored(self: Any, *rows: Any) -> None:
        ahead, self._ahead = self._ahead, {}
        build(self, *rows)
        self._ahead = ahead

    Catalog._build = as_stored  # type: ignore[method-assign]


def overtaken_rows_stay() -> None:
    """What a tick has stored that something else went ahead of stays stored, and is stored again."""
    in_force.take_back = lambda tx, moved, catalog: None


def windows_lost_by_who_dies() -> None:
    """A control that starts counts from what workers have reported by then, and not from what was judged."""
    start: Any = Windows.start_from
    Windows.start_from = lambda self, judged, row=None: start(self, judged)  # type: ignore[method-assign]


def living_workers_ended() -> None:
    """A control that starts takes every worker for gone that it has not heard of yet."""
    tally.MAX_KEPT = 0  # type: ignore[misc]


def twin_watches_nobody() -> None:
    """The template's twin does not hear of the end of workers that the template had forked."""
    Template._watch = lambda self, incarnation: None  # type: ignore[method-assign]


def tunnels_stay() -> None:
    """An endpoint that drains lets its tunnels be."""
    drain: Any = Tunnels.drain
    Tunnels.drain = lambda self, now, deadline_s, keys: (  # type: ignore[method-assign]
        drain(self, now, deadline_s, frozenset() if keys is not None else None)
    )


def tunnels_all_go() -> None:
    """When an endpoint drains, the tunnels of all others are sent away, too."""
    drain: Any = Tunnels.drain

    def broad(self: Any, now: float, deadline_s: float, keys: Any) -> None:
        drain(self, now, deadline_s, keys)
        for tunnel in self.open:
            tunnel.drain(now, now + deadline_s, SERVICE_RESTART)

    Tunnels.drain = broad  # type: ignore[method-assign]


def tunnels_counted_twice() -> None:
    """A tunnel is counted when it begins, and when it ends."""
    request: Any = VersionCounts.request

    def twice(self: Any, method: str, status: int, *more: Any) -> None:
        request(self, method, status, *more)
        if status == 101:
            self.requests[method, status] = self.requests.get((method, status), 0) + 1

    VersionCounts.request = twice  # type: ignore[method-assign]


def cohorts_by_table() -> None:
    """Who has the new version is drawn anew with each change of the weights."""
    cohort: Any = Service._cohort
    Service._cohort = lambda self, key: cohort(  # type: ignore[method-assign]
        self, key + bytes([self.generation % 256])
    )


def blocks_mix() -> None:
    """A blue-green rollout whose old version is asked lets both serve."""
    asking._drawn = lambda draw: asking.MIXED_PERCENT


def notices_forgotten() -> None:
    """What is still being sent to webhooks is stored as sent."""
    Notices.save = lambda self, tx: tx.set_meta(NOTIFIED, str(self._seen).encode())  # type: ignore[method-assign]


def questions_have_another_time() -> None:
    """A question to a webhook, asked again by the next control, says another time under the same key."""
    change.asked_now = moves.asked_now = lambda made: {"ask": made.state.ask + 1}


def marks_not_asked_for() -> None:
    """A control that starts does not ask workers what was done that could not be stored."""

    async def none(self: Any, timeout_s: float) -> dict[str, Any]:
        return {}

    Hub.marks = none  # type: ignore[method-assign]


def written_before_in_charge() -> None:
    """The new control of an upgrade writes what its file says while the old one is in charge."""
    load: Any = Catalog.load

    async def early(self: Any, store: Any, declared: Any, *marks: Any) -> None:
        await store_declared(store, declared, self._now())
        await load(self, store, declared, *marks)

    Catalog.load = early  # type: ignore[method-assign]


def fence_not_looked_at() -> None:
    """A control writes on although another one has raised the epoch."""
    begin: Any = SqliteStore._begin

    async def blind(self: Any) -> Any:
        try:
            return await begin(self)
        except StaleEpoch:
            self.epoch = int(await self.meta("epoch") or 0)
            return await begin(self)

    SqliteStore._begin = blind  # type: ignore[method-assign]


HARD: Final[dict[str, Callable[[], None]]] = {
    each.__name__: each
    for each in (
        notices_forgotten,
        drain_not_called_back,
        reported_each_second,
        no_table_for_who_comes_back,
        weights_of_the_store_at_a_reload,
        overtaken_rows_stay,
        windows_lost_by_who_dies,
        fence_not_looked_at,
        questions_have_another_time,
        twin_watches_nobody,
    )
}
"""Those that the first seeds do not find: they need a rare moment, or heal by the next table."""
MUTANTS: Final[dict[str, Callable[[], None]]] = {
    each.__name__: each
    for each in (
        evidence_before_commit,
        counted_twice,
        settled_twice,
        posts_tried_again,
        leased_and_lost,
        audit_forks,
        orphans_never_drain,
        lost_ack,
        held_lost_on_resume,
        living_workers_ended,
        tunnels_stay,
        tunnels_all_go,
        tunnels_counted_twice,
        blocks_mix,
        cohorts_by_table,
        written_before_in_charge,
        marks_not_asked_for,
        rollback_undone_by_a_late_row,
    )
}
"""Those that they do."""
FOUND_BY: Final = {
    "evidence_before_commit": 1,
    "posts_tried_again": 2,
    "tunnels_stay": 1,
    "cohorts_by_table": 2,
    "blocks_mix": 5,
    "written_before_in_charge": 2,
    "marks_not_asked_for": 5,
    "rollback_undone_by_a_late_row": 4,
}
"""The seed of 900 steps that found a defect last, if it was not the first: it is asked before the others."""
