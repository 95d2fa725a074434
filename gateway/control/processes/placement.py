"""Who accepts on which listening socket: its slot's own worker, else a healthy one that it is lent to."""

from collections.abc import Mapping

from gateway.control.processes.hub import Hub
from gateway.control.processes.listeners import Held, Listeners
from gateway.control.processes.slots import Worker
from gateway.link.messages import ListenerName
from gateway.log import get_logger

log = get_logger(component="supervisor")


class Placement:
    """The sockets' holders, as far as control arranged it."""

    def __init__(self, listeners: Listeners, hub: Hub) -> None:
        self._listeners = listeners
        self._hub = hub
        self._holders: dict[ListenerName, str] = {}
        """Socket -> incarnation of the worker that accepts on it."""

    def arrange(self, healthy: Mapping[int, Worker]) -> None:
        """Have every socket accepted on by one of `healthy` (slot -> worker); nothing happens without any."""
        if not healthy:
            return
        for worker in healthy.values():
            if not worker.link.accepting:
                worker.link.accept()
        for held in self._listeners.held:
            self._give(held, healthy.get(held.name.slot) or self._borrower(held, healthy))

    def drop(self, incarnation: str) -> None:
        """A worker accepts on nothing any more."""
        self._holders = {name: holder for name, holder in self._holders.items() if holder != incarnation}

    def _borrower(self, held: Held, healthy: Mapping[int, Worker]) -> Worker:
        """Return who already borrows the socket, else the one that holds fewest."""
        holders = list(self._holders.values())
        for worker in healthy.values():
            if self._holders.get(held.name) == worker.incarnation:
                return worker
        return min(healthy.values(), key=lambda worker: (holders.count(worker.incarnation), worker.slot))

    def _give(self, held: Held, worker: Worker) -> None:
        holder = self._holders.get(held.name)
        if holder == worker.incarnation:
            return
        self._holders[held.name] = worker.incarnation
        if held.name not in worker.born_with:
            worker.link.lend([held])
        if holder is not None and (previous := self._hub.peers.get(holder)) is not None:
            previous.reclaim([held])
        if worker.slot != held.name.slot:
            log.info("socket_lent", socket=held.name.address, of_slot=held.name.slot, to_slot=worker.slot)
