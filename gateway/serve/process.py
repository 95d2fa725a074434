"""The control process: builds every component, starts them in order, stops them in reverse.

Order of a start: configuration → template (forked before any loop) → lock → link → orphans' sockets →
the store's database is there → store → epoch, and what the file adds → listeners → catalog → workers with a
table → rollouts, drains → admin listener → workers accept → ready. A successor in an upgrade takes lock, link
and sockets from its predecessor instead, and once the epoch is its own writes what its file adds, and reads
the store again.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

from gateway import __version__, config, log
from gateway.cluster.presence import Presence
from gateway.config import Config
from gateway.control.catalog.declared import store_declared
from gateway.control.processes.hub import Hub
from gateway.control.processes.listeners import Listeners
from gateway.control.processes.peer import Peer
from gateway.control.processes.sdnotify import Notifier
from gateway.control.processes.succession import Succession
from gateway.control.processes.supervisor import Supervisor
from gateway.control.processes.template import Template
from gateway.control.processes.upgrade import Upgrade, UpgradeFailed
from gateway.control.tally import Tally
from gateway.core.settings.targets import Listener
from gateway.errors import GatewayError, StoreError, StoreTaken
from gateway.http1.form import native_form
from gateway.link.messages import Counts
from gateway.net.tls import ServerTls
from gateway.serve import loading, signals
from gateway.serve.background import Background
from gateway.serve.charge import SAY_S, if_soon, in_charge, patiently, until_there
from gateway.serve.following import Following, begin
from gateway.serve.handles import LINK_NAME, Handles
from gateway.serve.runtime_file import RUNTIME_NAME, remove_runtime, write_runtime
from gateway.serve.wiring import Components, Marks
from gateway.store.api import Store
from gateway.store.migrations import SCHEMA

logger = log.get_logger(component="serve")

MARKS_S: Final = 1.0
"""How long a start waits for orphans to say what is done and not stored: each does with its HELLO."""
UNSTORED: Final = "a rollback or a pause is not stored yet"
"""Why nothing may be built anew from the store now."""


class Control:
    """The life of one control process: start, serve, reload, upgrade, stop."""

    _store: Store | None = None
    _has_all = False
    """Whether all workers that there are, orphans too, are ours to end."""
    _ending: asyncio.Task[None] | None = None
    """Their end, where a stop has come amid the start."""

    def __init__(self, settings: Config, reload: Callable[[], Config], template: Template) -> None:
        self.settings = settings
        self.certificates = loading.read_certificates(settings)
        """In force, by index of the listen table: a file that changes counts when it is read again."""
        found = self._admin_certificate = loading.read_admin_tls(settings)
        self.admin_tls = ServerTls([found.certificate], found.client_ca) if found is not None else None
        self._reload = reload
        self.folder = settings.store.folder
        self.notifier = Notifier(os.environ)
        self.hub = Hub()
        self.tally = Tally()
        self.listeners = Listeners(
            [loading.listen_spec(listen) for listen in settings.listeners], settings.worker_count
        )
        self.supervisor = Supervisor(
            template=template,
            hub=self.hub,
            listeners=self.listeners,
            link_path=self.folder / LINK_NAME,
            drain_s=settings.shutdown.drain / 1000,
            orphan_timeout_s=settings.shutdown.orphan_timeout / 1000,
            leftovers=[self.folder / RUNTIME_NAME],
            release=__version__,
        )
        self.restarts: Mapping[str, int] = self.supervisor.restarts
        """Workers that had to be replaced, by cause."""
        self.is_reloaded = True
        """Whether the configuration that was read last is in force."""
        self.supervisor.on_ended = self.tally.on_ended
        self.supervisor.on_absent = self.tally.on_absent
        self.supervisor.on_template_gone = self._on_template_gone
        self.hub.events.counts = self._on_counts
        self.handles = Handles(self.folder, settings.admin.address)
        self.opened: Components | None = None
        self.background = Background(self.notifier, self._on_broken)
        self._presence: Presence
        self._following: Following | None = None
        self._epoch = 0
        """As raised by a successor."""
        self._unready: str | None = "starting"
        self._starting: asyncio.Task[Any] | None = None
        """What a signal to stop cancels, as long as nobody has given anything up for our sake."""
        self._is_serving = asyncio.Event()
        self._is_alone = asyncio.Event()
        """Set unless everything is being handed over: from the last word of our loops to the successor's."""
        self._is_alone.set()
        self._successor: int | None = None
        self._hurried = asyncio.Event()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    # -- what others ask of the process

    def unready(self) -> str | None:
        """Return why the gateway should get no traffic now; None: it should."""
        if self._unready is None and not self.supervisor.ready_slots():
            return "no worker is ready"
        return self._unready

    def certificate_expiries(self) -> dict[tuple[str, str], float]:
        """Return when the certificates in force expire, Unix seconds, by listen address and name."""
        return loading.certificate_expiries(self.settings, self.certificates, self._admin_certificate)

    # -- starting

    async def start(self, succession: Succession | None) -> None:
        """Bring everything up. Raises GatewayError, with nothing listening, if that is not possible."""
        self._starting = asyncio.current_task()
        self.folder.mkdir(parents=True, exist_ok=True)
        if succession is None:
            await self._begin()
        else:
            await self._succeed(succession)
        await self._take_charge()
        if succession is not None:
            succession.taken(self._epoch)
        self._starting = None

    async def _begin(self) -> None:
        self.handles.acquire()
        self.hub.open(self.handles.link)
        was_abandoned = self.handles.lock.was_abandoned
        if was_abandoned:
            self._starting = None  # a stop waits until the orphans are found, to end them
        await self.supervisor.gather_orphans(expected=was_abandoned)
        marks = await self.hub.marks(MARKS_S)
        self._starting, self._has_all = asyncio.current_task(), True
        if self.is_stopping:
            self._stop_starting()
        await self._open_components(await self._bound(await self._until_ours()), marks)
        self.supervisor.start()
        await self.supervisor.ready()

    async def _bound(self, store: Store) -> Store:
        """Return the store, which is ours, once everything is bound.

        All that a start writes comes first: with a store that takes no writes this process ends, and with it
        whatever has come to a socket of its own, while workers of a former control serve on.
        """
        try:
            if not store.follows:
                await patiently(store, store.raise_epoch)
                await patiently(store, lambda: store_declared(store, self.settings.service, store.now()))
            self.listeners.adopt_activated(os.environ)
            self.listeners.bind()
            self.handles.bind_admin()
        except BaseException:
            await store.close()
            raise
        return store

    async def _until_ours(self) -> Store:
        """Wait for the store's database and our turn, before anything is bound."""
        await until_there(self.settings.store, self._on_waiting)
        store = await self._in_charge(self._on_waiting)
        self.background.be_seen(self._presence)
        return store

    async def _in_charge(
        self, on_standby: Callable[[StoreError], None] | None = None, *, beside: int | None = None
    ) -> Store:
        """Return the store, ours from now on: a start may take longer than a lease lasts. Or it follows."""
        store, self._presence = await in_charge(self.settings, on_standby, beside=beside)
        self._store = store
        if not store.follows:
            self.background.hold(store)
        return store

    def _on_waiting(self, error: StoreError) -> None:
        self.notifier.waiting(f"waiting for the store: {error}", SAY_S)
        if isinstance(error, StoreTaken):
            logger.warning("standing_by", reason=str(error), consequence="the start waits for its turn")
        else:
            logger.error("store_away", error=str(error), consequence="the start waits until it is back")

    async def _succeed(self, succession: Succession) -> None:
        for name, fd in await succession.listeners():
            self.listeners.adopt(name, fd)
        self.listeners.bind()
        await self._open_components(await self._in_charge(beside=succession.schema))
        self.supervisor.start()
        await self.supervisor.ready()
        handed = await succession.commit(__version__)
        self._starting = None  # the old one is leaving: a stop must find us there
        if handed is None:
            self.handles.acquire()
            self.handles.bind_admin()
        else:
            self.handles.inherit(handed)
        self.hub.open(self.handles.link)
        store = self.components.store
        if not store.follows:
            await patiently(store, store.raise_epoch)
            await self.components.begin_anew(self.settings.service)
        self._epoch = store.epoch

    async def _open_components(self, store: Store, marks: Marks | None = None) -> None:
        """See `Components.open`."""
        self.opened = await Components.open(
            self.settings,
            store,
            self.hub,
            self.tally,
            self,
            marks=marks or {},
            certificates=self.certificates,
            upgrade=self.upgrade,
            listeners=self._own_listeners,
        )

    async def _take_charge(self) -> None:
        """The store is ours: go on with everything it says is under way, and let the workers accept."""
        components = self.components
        self._following = await begin(components, self._presence, self.background, lambda: self.settings)
        self.background.be_seen(self._presence)  # a successor only now: its predecessor was until here
        await components.admin.start(self.handles.admin.dup(), self.admin_tls)
        self.supervisor.open()  # last of what can fail: until here a former control's workers serve on
        self.background.start_loops(components)
        self._unready = None
        self._announce()

    def _announce(self) -> None:
        """Say where this gateway is, and that its main process is this one."""
        listen, admin = self.listeners.addresses(), self.handles.admin_address
        write_runtime(self.folder, listen=listen, admin=admin)
        self.notifier.ready()
        logger.info("serving", pid=os.getpid(), listen=listen, admin=admin, native=native_form())

    # -- running

    async def serve(self) -> int:
        """Run until a signal to stop, or until a successor is in charge. Returns the exit code."""
        self._is_serving.set()
        why = await self._ended
        await self._is_alone.wait()
        if why == "stop" and self._successor is not None:
            self._pass_stop_on(self._successor)
            why = "succeeded"
        if why == "stop":
            await self._stop()
            return 0
        if why == "broken":
            await self._stop_loops()
        await self._leave()
        return 0 if why == "succeeded" else 1

    def listen_to_signals(self) -> None:
        """Act on signals from now on; those for a gateway that serves wait until this one does."""
        signals.handle(
            stop=self._on_stop,
            reload=lambda: self._once_serving(self.reload, "reload"),
            reopen_logs=self.hub.reopen_logs,
            upgrade=lambda: self._once_serving(self._upgrade_quietly, "upgrade"),
        )

    @property
    def is_stopping(self) -> bool:
        """Whether a signal to stop has come."""
        return self._ended.done() and self._ended.result() == "stop"

    def _once_serving(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        async def wait_and_work() -> None:
            await self._is_serving.wait()
            await work()

        self.background.spawn(wait_and_work(), name)

    async def _stop_loops(self) -> None:
        """End the loops and commit the last tick."""
        await self.background.stop_loops()
        if self._following is not None:
            await self._following.last_words()
        await self.components.suspend()

    def _on_broken(self) -> None:
        if not self._ended.done():
            self._ended.set_result("broken")

    def _on_counts(self, peer: Peer, counts: Counts) -> None:
        self.tally.on_counts(peer.slot, peer.incarnation, counts)

    def _on_template_gone(self) -> None:
        logger.error("template_gone", consequence="no worker can be replaced; the next control takes over")
        self._on_broken()

    # -- reloading

    async def reload(self) -> None:
        """Read the configuration again, all or nothing."""
        self.notifier.reloading()
        try:
            if self.components.rollouts.has_unstored:
                raise GatewayError(UNSTORED)
            new = self._reload()
            loading.refuse_unreloadable(self.settings, new)
            certificates = loading.read_certificates(new)
            admin = loading.read_admin_tls(new)
            proxy = self.components.proxy_settings(new, certificates)
            await self.components.catalog.reload(self.components.store, new.service, proxy)
        except GatewayError as exc:
            self.is_reloaded = False
            logger.error("reload_refused", error=str(exc))
        else:
            self.is_reloaded = True
            self.components.spans.configure(new.trace.otel)
            logger.info("reloaded", changes=config.diff(self.settings, new))
            self.settings, self.certificates = new, certificates
            self.components.rollouts.schedule.windows = new.freeze_windows
            if self.admin_tls is not None and admin is not None:
                self._admin_certificate = admin
                self.admin_tls.use([admin.certificate], admin.client_ca)
        self.hub.reopen_logs()
        self.notifier.ready()

    # -- the gateway's own upgrade

    async def upgrade(self) -> int:
        """Put a new control, from the code now on disk, in charge. Returns its pid; this one then ends.

        Raises UpgradeFailed with the reason; this one goes on.
        """
        if self.components.rollouts.has_unstored:
            raise UpgradeFailed(UNSTORED)
        upgrade = Upgrade(
            lock=self.handles.lock,
            held=lambda: self.listeners.held,
            link=self.handles.link,
            admin={self.handles.admin_address: self.handles.admin},
            quiesce=self._quiesce,
            resume=self._resume,
            is_wanted=lambda: not self._ended.done(),
            schema=SCHEMA,
        )
        try:
            pid = self._successor = await upgrade.run()
        finally:
            self._is_alone.set()
        self.notifier.main_pid(pid)
        if not self._ended.done():
            self._ended.set_result("succeeded")
        return pid

    async def _upgrade_quietly(self) -> None:
        try:
            await self.upgrade()
        except GatewayError as exc:
            logger.error("upgrade_failed", error=str(exc))

    async def _quiesce(self) -> None:
        self._is_alone.clear()
        self.components.admin.hold_changes(held=True)
        self.hub.pause()
        await self._stop_loops()
        if self.components.rollouts.has_unstored:  # done since the upgrade began, and on a disk that fails
            raise UpgradeFailed(UNSTORED)

    async def _resume(self) -> None:
        """Go on after all: the successor is dead. What cannot be taken back ends this control, too."""
        try:
            await self._take_back()
        except Exception as exc:
            logger.error("upgrade_not_undone", error=repr(exc), consequence="the next control takes over")
            self._on_broken()
            raise

    async def _take_back(self) -> None:
        if self._following is not None and not self._following.is_over:
            self.hub.open(self.handles.link)
            self._following.go_on()
        else:
            await self._lead_again()
        self.background.start_loops(self.components)
        self.components.admin.hold_changes(held=False)
        self._announce()

    async def _lead_again(self) -> None:
        await self.components.regain(self.settings.service)
        self.hub.open(self.handles.link)
        await self.components.resume()
        self.background.lead(self.components)

    # -- stopping

    def _on_stop(self) -> None:
        if not self._ended.done():
            self._ended.set_result("stop")
            self._stop_starting()
        elif self._successor is not None:
            self._pass_stop_on(self._successor)
        elif self._ended.result() == "stop":
            self._hurried.set()
            self.background.spawn(self.supervisor.quit(), "quit")

    def _stop_starting(self) -> None:
        """Let a start go no further, whatever it waits for; orphans stop in order, from now on."""
        if self._starting is not None:
            self._starting.cancel()
            if self._has_all:
                drain_s = self.settings.shutdown.drain / 1000
                self._ending = self.background.spawn(self.supervisor.stop(drain_s), "stop")

    def _pass_stop_on(self, successor: int) -> None:
        """All is the successor's own by now, and so is the stop: the gateway must not live on in it."""
        with suppress(ProcessLookupError):
            os.kill(successor, signal.SIGTERM)

    async def _stop(self) -> None:
        """Leave in order: not ready, then no longer accepting, then drained, then gone."""
        self._unready = "shutting down"
        self.notifier.stopping()
        await self._stop_loops()
        await self.background.hold_no_longer()
        await if_soon(self._presence.stopping())
        await if_soon(self.components.store.release())  # now: nobody is to be in charge only after our drain
        logger.info("stopping", delay_ms=self.settings.shutdown.delay, drain_ms=self.settings.shutdown.drain)
        await self._delay(self.settings.shutdown.delay / 1000)
        await self.supervisor.stop(self.settings.shutdown.drain / 1000)
        await self.background.release()
        await if_soon(self._presence.leave())  # only now: a version that drained may have been in use here
        await self.components.close()
        remove_runtime(self.folder)
        self.handles.release()
        logger.info("stopped")

    async def _delay(self, seconds: float) -> None:
        """Wait out `shutdown.delay`; a second signal ends it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()

    async def _leave(self) -> None:
        """Answer what was asked of us and go, but leave the workers: they serve on, for our successor."""
        self.supervisor.release()  # first: until they meet our successor, they serve by our last table
        await self.background.release()  # what there is to be said of this gateway, a successor says
        await self.components.close()
        self.handles.drop()
        logger.info("left", pid=os.getpid())

    async def abandon(self) -> None:
        """A start failed: end what it began. Workers of a former control serve on, for the next start, unless
        it is to stop.
        """
        await self.background.stop_loops()
        await self.background.hold_no_longer()
        store = self.opened.store if self.opened is not None else self._store
        if self._ending is not None:
            if store is not None:
                await if_soon(self._presence.stopping())
                await if_soon(store.release())
            await asyncio.wait({self._ending})
        await self.background.release()
        if self._ending is not None:
            if store is not None:
                await if_soon(self._presence.leave())  # not before the last beat: that would undo it
            remove_runtime(self.folder)
        if store is not None:
            await store.close()
        await self.supervisor.quit()
        self.handles.drop()

    @property
    def components(self) -> Components:
        """Return what stands on the store."""
        assert self.opened is not None, "the store is opened before anything asks for it"
        return self.opened

    def _own_listeners(self) -> list[Listener]:
        """Return where this gateway itself listens: no version may lead there."""
        return [Listener.of(each) for each in (*self.listeners.addresses(), self.handles.admin_address)]
