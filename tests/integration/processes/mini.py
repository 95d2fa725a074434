"""A control process with nothing but the two processes in it: one fixed table, an epoch in a file.

It runs the real template, workers, supervision, adoption and upgrade, in the order `gateway serve` does.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from gateway.control.processes.hub import Hub
from gateway.control.processes.listeners import Listeners
from gateway.control.processes.lock import StoreLock
from gateway.control.processes.succession import Succession
from gateway.control.processes.supervisor import Supervisor
from gateway.control.processes.template import Template
from gateway.control.processes.upgrade import Upgrade, UpgradeFailed
from gateway.control.tally import Tally
from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.errors import GatewayError
from gateway.link import channel as link
from gateway.link.snapshot import EndpointSnap, ProxySettings, ServiceSnap, Snapshot, VersionSnap
from gateway.link.spawn import ListenSpec
from gateway.log import configure
from gateway.worker.main import run_worker


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--listen", action="append", required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--upstream", default="127.0.0.1:1")
    parser.add_argument("--drain", type=float, default=10.0)
    parser.add_argument("--orphan", type=float, default=3600.0)
    parser.add_argument("--entry", default="worker", help="`crash`: workers die as they start")
    return parser.parse_args()


class Mini:
    """The composition."""

    def __init__(self, args: argparse.Namespace, template: Template, succession: Succession | None) -> None:
        self.args = args
        self.succession = succession
        self.number = 1
        self.lock: StoreLock | None = None
        self.link: socket.socket | None = None
        self.upgrade_error = ""
        self.loops_running = False
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.tally = Tally()
        self.hub = Hub()
        self.hub.whole = lambda: self.snapshot(whole=True)
        self.hub.events.counts = lambda peer, counts: self.tally.on_counts(
            peer.slot, peer.incarnation, counts
        )
        self.listeners = Listeners([ListenSpec(address) for address in args.listen], args.workers)
        self.supervisor = Supervisor(
            template=template,
            hub=self.hub,
            listeners=self.listeners,
            link_path=args.folder / "control.sock",
            drain_s=args.drain,
            orphan_timeout_s=args.orphan,
        )
        self.supervisor.on_ended = self.tally.on_ended
        self.supervisor.on_absent = self.tally.on_absent
        self.supervisor.on_template_gone = lambda: self.ended.set_result("broken")

    @property
    def epoch_file(self) -> Path:
        path: Path = self.args.folder / "epoch"
        return path

    def epoch(self) -> int:
        return int(self.epoch_file.read_text()) if self.epoch_file.exists() else 0

    def snapshot(self, *, whole: bool) -> Snapshot:
        host, _, port = self.args.upstream.partition(":")
        url = f"http://{self.args.upstream}"
        endpoint = EndpointSnap(key=f"v|{url}|{host}", url=url, address=host, port=int(port))
        version = VersionSnap(id="v", name="v1", weight=100, active=True, endpoints=(endpoint,))
        settings = ServiceSettings(routes=(RouteSettings(path="/"),))
        service = ServiceSnap(
            id="s", name="s", generation=0, settings=settings, versions=(version,), current="v"
        )
        proxy = ProxySettings(orphan_timeout_s=self.args.orphan, drain_s=self.args.drain)
        return Snapshot(self.number, whole, {"s": service}, proxy=proxy, workers=self.args.workers)

    # -- the order of `gateway serve`

    async def start(self) -> None:
        if self.succession is None:
            await self.begin()
        else:
            await self.succeed(self.succession)
        self.load_tally()
        if os.environ.get("MINI_FAIL") == "epoch" and self.succession is not None:
            os._exit(7)
        self.supervisor.open()
        if self.succession is not None:
            self.succession.taken(self.own_epoch)
        self.loops_running = True

    async def begin(self) -> None:
        self.lock = StoreLock.acquire(self.args.folder)
        self.open_link(link.listen(self.args.folder / "control.sock"))
        await self.supervisor.gather_orphans(expected=self.lock.was_abandoned)
        self.listeners.bind()
        self.supervisor.start()
        await self.supervisor.ready()
        self.raise_epoch()

    async def succeed(self, succession: Succession) -> None:
        for name, fd in await succession.listeners():
            self.listeners.adopt(name, fd)
        self.listeners.bind()
        self.supervisor.start()
        await self.supervisor.ready()
        if os.environ.get("MINI_FAIL") == "ready":
            raise GatewayError("made to fail")
        handed = await succession.commit()
        if os.environ.get("MINI_FAIL") == "commit":
            os._exit(7)
        if handed is None:
            self.lock = StoreLock.acquire(self.args.folder)
            self.open_link(link.listen(self.args.folder / "control.sock"))
        else:
            self.lock = handed.lock
            self.open_link(handed.link)
        self.raise_epoch()

    def open_link(self, listener: socket.socket) -> None:
        self.link = listener
        self.hub.open(listener)

    def raise_epoch(self) -> int:
        self.own_epoch = self.epoch() + 1
        self.epoch_file.write_text(str(self.own_epoch))
        return self.own_epoch

    def load_tally(self) -> None:
        path = self.args.folder / "tally"
        if path.exists():
            self.tally.load(path.read_bytes())

    def save_tally(self) -> None:
        path = self.args.folder / "tally"
        path.with_suffix(".new").write_bytes(self.tally.dump())
        path.with_suffix(".new").rename(path)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.on_stop)
        loop.add_signal_handler(signal.SIGUSR2, lambda: tasks.add(loop.create_task(self.upgrade())))
        status = self.args.folder / f"status-{os.getpid()}"
        server = await asyncio.start_unix_server(self.answer, path=status)
        (self.args.folder / "status").with_suffix(".new").write_text(str(status))
        (self.args.folder / "status.new").rename(self.args.folder / "status")
        saving = loop.create_task(self.keep_saving())
        why = await self.ended
        saving.cancel()
        assert self.lock is not None
        assert self.link is not None
        if why == "stop":
            await self.supervisor.stop(self.args.drain)
            self.lock.release()
            (self.args.folder / "control.sock").unlink(missing_ok=True)
        else:
            self.supervisor.release()
            self.lock.drop()
        server.close()
        self.link.close()

    async def keep_saving(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            if self.loops_running and self.epoch() == self.own_epoch:
                self.save_tally()

    def on_stop(self) -> None:
        if not self.ended.done():
            self.ended.set_result("stop")
        else:
            asyncio.get_running_loop().create_task(self.supervisor.quit())

    async def upgrade(self) -> None:
        assert self.lock is not None
        assert self.link is not None

        async def quiesce() -> None:
            self.loops_running = False
            self.hub.pause()
            self.save_tally()

        async def resume() -> None:
            assert self.link is not None
            if self.epoch() != self.own_epoch:
                self.raise_epoch()
            self.hub.open(self.link)
            self.loops_running = True

        upgrade = Upgrade(
            lock=self.lock,
            held=lambda: self.listeners.held,
            link=self.link,
            admin={},
            quiesce=quiesce,
            resume=resume,
        )
        try:
            await upgrade.run()
        except UpgradeFailed as exc:
            self.upgrade_error = str(exc)
            return
        self.ended.set_result("succeeded")

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = (await reader.readline()).decode().split()
        reply: dict[str, Any] = {}
        if command[:1] == ["publish"]:
            self.number += 1
            self.hub.publish(self.snapshot(whole=False))
            reply["stragglers"] = await self.hub.applied(self.number, float(command[1]))
        total = self.tally.version("v")
        reply |= {
            "pid": os.getpid(),
            "template": self.supervisor.template.pid,
            "spare": self.supervisor.template.spare_pid,
            "epoch": self.own_epoch,
            "addresses": self.listeners.addresses(),
            "sockets": sorted([held.name.slot, held.inode] for held in self.listeners.held),
            "workers": [
                {"slot": w.slot, "pid": w.pid, "applied": w.applied, "draining": w.draining}
                for w in self.hub.workers()
            ],
            "ready": self.supervisor.ready_slots(),
            "restarts": self.supervisor.restarts,
            "answered": sum(total.requests.values()),
            "in_flight": total.in_flight,
            "upgrade_error": self.upgrade_error,
        }
        writer.write(json.dumps(reply).encode())
        writer.close()


async def main(args: argparse.Namespace, template: Template, succession: Succession | None) -> int:
    mini = Mini(args, template, succession)
    try:
        await mini.start()
    except GatewayError as exc:
        sys.stderr.write(f"error: {exc}\n")
        if succession is not None:
            succession.failed(str(exc))
        await mini.supervisor.quit()
        return 1
    await mini.run()
    return 0


if __name__ == "__main__":
    configure()
    arguments = options()
    entry = run_worker if arguments.entry == "worker" else lambda order, link, listeners: 3
    forked = Template.start(entry)
    sys.exit(asyncio.run(main(arguments, forked, Succession.from_environ(os.environ))))
