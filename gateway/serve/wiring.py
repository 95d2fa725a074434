"""The components of the control process that stand on the store, built and wired together.

Composition only: what each needs is named here once, and nothing is decided.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway import __version__
from gateway.actions.access import Access
from gateway.actions.actions import Actions
from gateway.admin.auth import Authenticator, ensure_bootstrap_token
from gateway.admin.metrics import Watched
from gateway.admin.server import AdminServer, ProcessState
from gateway.cluster.feed import Feed
from gateway.config import Config
from gateway.control.catalog.catalog import Catalog
from gateway.control.catalog.declared import Declared, store_declared
from gateway.control.catalog.retention import Retention
from gateway.control.isolation import Isolation
from gateway.control.processes.hub import Hub
from gateway.control.processes.peer import Peer
from gateway.control.rollouts.acts import Acts
from gateway.control.rollouts.elsewhere import Elsewhere
from gateway.control.rollouts.loop import Rollouts
from gateway.control.rollouts.stored import load_counts
from gateway.control.rollouts.unstored import counting
from gateway.control.rollouts.webhooks import Webhooks
from gateway.control.spans import SpanExporter
from gateway.control.store_watch import StoreWatch
from gateway.control.tally import Tally
from gateway.control.upstreams.breakers import Breakers
from gateway.control.upstreams.checks import Checks
from gateway.control.upstreams.drains import Drains
from gateway.control.upstreams.probes import Probes
from gateway.control.upstreams.resolver import Resolver
from gateway.core.judge.decision import Decision
from gateway.core.settings.store_url import is_postgres
from gateway.core.settings.targets import Listener, TargetRules
from gateway.errors import StoreError
from gateway.http1.form import native_form
from gateway.link.messages import BreakerReport
from gateway.link.snapshot import CertificatePem, Mark, ProxySettings, TargetLimits
from gateway.log import get_logger
from gateway.net.machine import Sockets, is_local_address
from gateway.serve.charge import name_of, patiently
from gateway.serve.handles import LINK_NAME
from gateway.store.api import Store
from gateway.store.records import TokenRecord

log = get_logger(component="serve")

Certificates = tuple[tuple[CertificatePem, ...], ...]

ADMIN_CLOSE_S: Final = 2.0
NAMES_S: Final = 5.0
"""How long a start waits for host names: until they are found, the table has no endpoint for them."""


Marks = Mapping[str, Mark]
"""By deployment."""


class Components:
    """Store, catalog, and everything that reads or writes them."""

    feed: Feed | None = None
    """What takes in what other gateways commit; None: no other can."""

    def __init__(
        self,
        settings: Config,
        store: Store,
        hub: Hub,
        tally: Tally,
        state: ProcessState,
        *,
        gateway_id: str,
        certificates: Certificates,
        upgrade: Callable[[], Awaitable[int]],
        listeners: Callable[[], Sequence[Listener]],
    ) -> None:
        """state: what the process says of itself. gateway_id: the same for all that share the store.

        certificates: by index of the listen table. listeners: where the gateway itself listens.
        """
        self.store = store
        self.marks: Mapping[str, Mark] = {}
        """What was done before it could be stored, and nobody has taken over yet, by deployment."""
        self.hub = hub
        self.tally = tally
        self.gateway_id = gateway_id
        rules = target_rules(settings, listeners)
        proxy = self.proxy_settings(settings, certificates)
        wall = tally.history.wall = self._wall
        self.catalog = Catalog(hub, rules=rules, proxy=proxy, workers=settings.worker_count, now=store.now)
        self.breakers = Breakers(store, self.catalog, hub, wall=wall)
        hub.events.breaker = self._on_breaker_report
        self.probes = Probes(store, self.catalog, rules=rules, now=store.now)
        self.checks = Checks(store, self.catalog, self.probes, rules=rules, now=store.now)
        elsewhere = Elsewhere(store, tally)
        self.drains = Drains(store, self.catalog, hub, elsewhere.barrier, now=store.now)
        self.webhooks = Webhooks(rules._replace(allowed=()))  # anywhere else: chat services are not targets
        shared = (self.checks, self.drains, self.webhooks, elsewhere)
        acts = Acts(self.catalog, hub, *shared, node=store.node, wall=wall)
        self.rollouts = Rollouts(store, self.catalog, tally, acts, wall=wall)
        self.rollouts.schedule.windows = settings.freeze_windows
        self.isolation = self._isolation(settings, hub)
        self.retention = Retention(store, self.catalog, tally, now=store.now)
        self.resolver = Resolver(self.catalog, rules=rules)
        self.auth = auth = Authenticator(
            store, failed_logins=settings.rate_limit.failed_logins_per_15_minutes, utc=store.now
        )
        access = self._access(settings, hub, rules, on_token=auth.learn, upgrade=upgrade)
        self.spans = self._span_exporter(settings, hub)
        self.watch = StoreWatch(store, settings.store.folder, store.now)
        self.actions = Actions(access, self.watch)
        self.admin = self._admin_server(settings, hub, state, auth)

    @classmethod
    async def open(
        cls,
        settings: Config,
        store: Store,
        hub: Hub,
        tally: Tally,
        state: ProcessState,
        *,
        marks: Mapping[str, Mark] | None = None,
        certificates: Certificates = (),
        upgrade: Callable[[], Awaitable[int]],
        listeners: Callable[[], Sequence[Listener]],
    ) -> "Components":
        """Build what serves from the store: the first table is ready when this returns.

        store: closed with the components, and if they cannot be built.
        marks: what a former control did before it could store it, by deployment: it stays in force.
        """
        try:
            await patiently(store, store.know)
            own_id = (await patiently(store, lambda: store.meta("gateway_id")) or b"").decode()
            components = cls(
                settings,
                store,
                hub,
                tally,
                state,
                gateway_id=own_id,
                certificates=certificates,
                upgrade=upgrade,
                listeners=listeners,
            )
            components.marks = counting(marks or {}, await patiently(store, store.open_deployments))
            await patiently(store, lambda: components.catalog.load(store, settings.service, components.marks))
            with suppress(TimeoutError):
                async with asyncio.timeout(NAMES_S):
                    await components.resolver.resolve_all()
        except BaseException:
            await store.close()
            raise
        return components

    def _access(
        self,
        settings: Config,
        hub: Hub,
        rules: TargetRules,
        *,
        on_token: Callable[[TokenRecord], None],
        upgrade: Callable[[], Awaitable[int]],
    ) -> Access:
        """Return what operators' actions share."""
        return Access(
            store=self.store,
            catalog=self.catalog,
            hub=hub,
            rollouts=self.rollouts,
            drains=self.drains,
            checks=self.checks,
            tally=self.tally,
            resolve=self.resolver.resolve,
            upgrade=upgrade,
            breaker=self.breakers.status,
            on_token=on_token,
            rules=rules,
            drain_ms=settings.shutdown.drain,
            second_person=settings.admin.second_person,
            release=__version__,
            native=native_form(),
            node=name_of(settings),
            now=self.store.now,
        )

    def _admin_server(
        self, settings: Config, hub: Hub, state: ProcessState, auth: Authenticator
    ) -> AdminServer:
        return AdminServer(
            actions=self.actions,
            auth=auth,
            store=self.store,
            catalog=self.catalog,
            tally=self.tally,
            hub=hub,
            state=state,
            watch=self.watch,
            limits=settings.rate_limit,
            hosts=settings.admin.hosts,
            watched=Watched(
                rollouts=self.rollouts,
                spans=self.spans,
                probes=self.probes.counts,
                store_errors=self.store.errors.by_kind,
                isolation=self.isolation,
            ),
        )

    def _wall(self) -> float:
        """Return Unix seconds, by the clock that all gateways of the store share."""
        return self.store.now().timestamp()

    def _span_exporter(self, settings: Config, hub: Hub) -> SpanExporter:
        exporter = SpanExporter(
            settings.trace.otel, judged=self._judged, known=self._version_ids, release=__version__
        )
        hub.events.spans = exporter.take
        return exporter

    def _isolation(self, settings: Config, hub: Hub) -> Isolation:
        isolation = Isolation(isolation_s(settings), hub.in_touch, self._carried)
        if isolation.limit_s:
            self.rollouts.isolation = isolation
        return isolation

    def _carried(self) -> list[str]:
        """Return the services whose new version has requests by what was stored last."""
        return sorted(each.state.service for each in self.rollouts.under_judgement if each.state.percent)

    def _judged(self, service: str) -> Decision | None:
        """Return the judge's last word on a service's open rollout."""
        state = self.rollouts.open_state(service)
        return state.judged if state is not None else None

    def _version_ids(self) -> set[str]:
        return {version_id for service in self.catalog.services.values() for version_id in service.versions}

    def proxy_settings(self, settings: Config, certificates: Certificates) -> ProxySettings:
        """Return what the workers need of the configuration."""
        return ProxySettings(
            timeouts=settings.timeouts,
            limits=settings.limits,
            trusted_proxies=tuple(listen.trusted_proxies for listen in settings.listeners),
            certificates=certificates,
            targets=TargetLimits(
                allowed=settings.admin.allowed_targets, own_sockets=(str(link_path(settings)),)
            ),
            gateway_id=self.gateway_id,
            via=settings.proxy.via,
            access_log_format=settings.access_log.format,
            access_log_path=settings.access_log.path,
            access_log_query=settings.access_log.query,
            access_log_only=settings.access_log.only,
            trace_sample=settings.trace.sample,
            trace_export=settings.trace.otel is not None,
            trace_expose=settings.trace.expose,
            orphan_timeout_s=settings.shutdown.orphan_timeout / 1000,
            drain_s=settings.shutdown.drain / 1000,
            isolation_s=isolation_s(settings),
        )

    async def begin_anew(self, declared: Sequence[Declared]) -> None:
        """The store is ours only now, or again: write what the file adds, and send workers what it comes to.

        Raises StoreError, ConfigError.
        """
        store = self.store
        await patiently(store, lambda: store_declared(store, declared, store.now()))
        await patiently(store, lambda: self.catalog.load(store, declared))
        self.catalog.publish_all()

    async def regain(self, declared: Sequence[Declared]) -> None:
        """Be in charge again after all, also where a successor that died had raised the epoch.

        Raises StoreError, ConfigError.
        """
        if not await patiently(self.store, self.store.is_current):
            log.warning("epoch_taken_back", reason="the new control died after it had raised it")
            await patiently(self.store, self.store.raise_epoch)
            await self.begin_anew(declared)

    async def take_up(self, token_file: Path) -> None:
        """Be in charge of the store: go on with its counts and with everything it says is under way.

        token_file: where a first token is written.
        """
        store = self.store
        await patiently(store, lambda: load_counts(store, self.tally))
        stored = {record.id for record in await patiently(store, store.load_versions)}
        self.tally.keep(lambda each: each in stored or self.catalog.has_version(each))
        await patiently(store, lambda: self.tally.history.load(store))
        await patiently(store, lambda: ensure_bootstrap_token(store, token_file, store.now()))
        await self.resume()

    async def resume(self) -> None:
        """Go on with everything the store says is under way."""
        for step in (
            self.watch.begin,
            self.actions.approvals.recover,
            self.breakers.recover,
            lambda: self.rollouts.recover(self.marks),
        ):
            await patiently(self.store, step)
        self.marks = {}
        self.catalog.follow(self.rollouts)
        self.drains.recover(await patiently(self.store, self.store.load_versions))

    async def close(self) -> None:
        """Answer what was asked of us, say what there is to say, and leave the store."""
        await self.admin.close(ADMIN_CLOSE_S)
        await self.drains.here.stop()
        await self.webhooks.close()
        await self.spans.close()
        await self.store.close()

    async def suspend(self) -> None:
        """End what is under way here and store the last of it; `resume` goes on with it, here or elsewhere.

        A store that takes nothing any more does not hold this up: it is as if control had been killed. Where
        another gateway is in charge, or this one is only about to be, nothing is under way here.
        """
        if not self.rollouts.leads:
            return
        await self.drains.stop()
        for storing in (
            self.rollouts.stop(),
            self.probes.flush(),
            self.breakers.flush(counts=True),
            self.tally.history.flush(self.store),
            self.watch.write_head(),
        ):
            try:
                await storing
            except StoreError as exc:
                log.error("last_state_not_stored", error=str(exc))

    def _on_breaker_report(self, peer: Peer, report: BreakerReport) -> None:
        """Requests fail at an endpoint, or go well again: the breaker's business, and a reason to probe."""
        self.breakers.on_report(peer, report)
        if report.kind in ("failures", "opened", "trial_failed"):
            self.probes.hurry(report.key)


def isolation_s(settings: Config) -> float:
    """Return after how long without the store open rollouts go back; 0: never, as nobody shares it."""
    return settings.cluster.isolation / 1000 if is_postgres(settings.store.url) else 0.0


def link_path(settings: Config) -> Path:
    """Return where the socket of the link is: beside the store."""
    return settings.store.folder / LINK_NAME


def target_rules(settings: Config, listeners: Callable[[], Sequence[Listener]]) -> TargetRules:
    """Return where this gateway may connect to. listeners: where it listens itself."""
    sockets = Sockets(
        own=(link_path(settings),),
        allowed=settings.admin.allowed_sockets,
        named=settings.socket_files,
    )
    return TargetRules(
        settings.admin.allowed_targets, listeners, is_local_address, sockets.forbidden, sockets.unlisted
    )
