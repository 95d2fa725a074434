"""Notices to webhooks: every event they want, at least once, whatever happens to control meanwhile.

The events are rows, committed with what they are about. From there they are sent; how far all of them have
been is stored with the tally. A control that starts goes on from there: an event may be sent twice, always
under the same key.
"""

import asyncio
from typing import Final, Protocol

from gateway.control.rollouts.webhooks import Message, Webhooks
from gateway.store.api import Store, Transaction
from gateway.store.records import EventRecord, ServiceRecord

NOTIFIED: Final = "told"
"""Under this name it is stored up to where everything was sent; older releases read it too."""
BATCH: Final = 500
"""Events read at once."""


class CatalogView(Protocol):
    """What notices need of the catalog."""

    def service_record(self, name: str) -> ServiceRecord: ...


class Notices:
    """Follows the events and hands them to the webhooks of their services."""

    def __init__(self, store: Store, catalog: CatalogView, webhooks: Webhooks) -> None:
        self._store = store
        self._catalog = catalog
        self._webhooks = webhooks
        self._seen = 0
        """Id of the last event read."""
        self._under_way: dict[asyncio.Task[None], int] = {}
        """Delivery -> its event. One that was cut off stays: it is the next control's."""

    async def recover(self) -> None:
        """Go on where the last control was; in a new store, from here."""
        self._under_way.clear()
        stored = await self._store.meta(NOTIFIED)
        if stored is not None:
            self._seen = int(stored)
            return
        self._seen = await self._store.last_event_id()
        async with self._store.transaction() as tx:
            self.save(tx)

    async def catch_up(self) -> None:
        """Begin to send what has happened since the last call."""
        while events := await self._store.events(after=self._seen, limit=BATCH):
            for event in events:
                self._notify(event)
            self._seen = events[-1].id

    def save(self, tx: Transaction) -> None:
        """Store up to where everything was sent."""
        tx.set_meta(NOTIFIED, str(min(self._under_way.values(), default=self._seen + 1) - 1).encode())

    def _notify(self, event: EventRecord) -> None:
        message = message_of(event)
        if message is None:
            return
        try:
            hooks = self._catalog.service_record(event.service).settings.webhooks
        except KeyError:
            return  # the service is gone, and its webhooks with it
        for task in self._webhooks.notify(hooks, message):
            self._under_way[task] = event.id
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._under_way.pop(task, None)


def message_of(event: EventRecord) -> Message | None:
    """Return what to send of an event; None if it is nobody's business outside."""
    data = event.data
    if event.kind.startswith("deployment."):
        data_sent = {
            "deploymentId": event.deployment_id,
            "fromVersion": data.get("fromVersion"),
            "toVersion": event.version,
            "percent": data.get("percent"),
            "status": data.get("status"),
            "alert": data.get("alert"),
        }
        text = str(data.get("text", event.kind))
    elif event.kind in ("version.unhealthy", "version.healthy") and not data.get("idle"):
        data_sent = {"version": event.version, "alert": event.kind == "version.unhealthy"}
        text = f"version {event.version} is {event.kind.partition('.')[2]}"
    else:
        return None
    key = f"{event.deployment_id or event.service}:{event.id}"
    return Message(
        key=key,
        kind=event.kind,
        service=event.service,
        text=text,
        at=event.at,
        data=data_sent,
        node=event.node,
    )
