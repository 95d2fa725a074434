"""What operators may do with services: declare, show, change, hold, delete."""

import uuid
from functools import partial
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from gateway.actions.access import Access, Actor, require_match, require_role, require_scope
from gateway.actions.bodies import CreateService, Explain, checked
from gateway.actions.problems import conflict, forbidden, invalid
from gateway.control.catalog.declared import route_conflict
from gateway.control.catalog.entries import ServiceEntry, context_of
from gateway.core.routing.overlap import losers
from gateway.core.routing.service import ServiceSettings
from gateway.core.settings.secrets import hidden
from gateway.errors import ConfigError
from gateway.store.api import Page, Transaction
from gateway.store.records import ServiceRecord

OTHER_ROUTE: Final = (
    "take another path or host, or change that one first: `gateway edit SERVICE --route ROUTE`"
)


class Services:
    """Everything about services."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def list_all(self) -> Page[ServiceRecord]:
        """Return every service."""
        return Page(
            [self._access.catalog.services[name].record for name in sorted(self._access.catalog.services)]
        )

    async def get(self, name: str) -> ServiceRecord:
        """Return a service."""
        return self._access.service(name).record

    async def create(self, actor: Actor, body: CreateService) -> ServiceRecord:
        """Make a service; its versions come next."""
        settings = ServiceSettings(
            **{name: getattr(body, name) for name in ServiceSettings.__struct_fields__}
        )
        async with self._access.change(actor, "service.create", body.name) as tx:
            require_scope(actor, body.name)
            if body.name in self._access.catalog.services:
                raise conflict(
                    f"service {body.name!r} exists already",
                    f"`gateway edit {body.name}` changes its settings",
                )
            self._check_settings(settings)
            record = self.add(tx, actor, body.name, settings)
        self._access.catalog.publish([record.name])
        return record

    def add(self, tx: Transaction, actor: Actor, name: str, settings: ServiceSettings) -> ServiceRecord:
        """Put a new service into `tx`. Raises Problem 409 if one of its routes is taken."""
        others = {each: entry.record.settings for each, entry in self._access.catalog.services.items()}
        if problem := route_conflict({**others, name: settings}):
            raise conflict(problem, OTHER_ROUTE)
        self._refuse_taking(actor, name, settings)
        dropped_id = self._access.catalog.set_aside_id(name)
        if dropped_id is not None:
            tx.delete_service(dropped_id)  # the file dropped it, and its name is wanted again
        now = self._access.now()
        record = ServiceRecord(
            id=str(uuid.uuid4()), name=name, settings=settings, created_at=now, updated_at=now
        )
        tx.put_service(record)
        self._access.add_event(tx, "service.created", actor, name)
        tx.on_commit(partial(self._access.catalog.put_service, record))
        return record

    async def patch(
        self, actor: Actor, name: str, patch: dict[str, Any], *, if_match: str | None = None
    ) -> ServiceRecord:
        """Change settings by a JSON merge patch (RFC 7396): null takes a setting back to its default.

        One exception: `testers.values` replaces all there were, whose names nobody can read to null them.
        """
        async with self._access.change(actor, "service.patch", name, {"patch": hidden(patch)}) as tx:
            require_scope(actor, name)
            entry = self._editable(name)
            require_match(if_match, entry.record)
            settings = checked(
                ServiceSettings, merged(_without_replaced(entry.record.settings, patch), patch)
            )
            self._check_settings(settings)
            others = {each: other.record.settings for each, other in self._access.catalog.services.items()}
            if problem := route_conflict({**others, name: settings}):
                raise conflict(problem, OTHER_ROUTE)
            if settings.routes != entry.record.settings.routes:
                self._refuse_taking(actor, name, settings)
            record = replace(entry.record, settings=settings, updated_at=self._access.now())
            tx.put_service(record)
            self._access.add_event(tx, "service.changed", actor, name, fields=sorted(patch))
            tx.on_commit(partial(self._access.catalog.put_service, record))
        self._access.catalog.publish([name])
        return record

    async def delete(self, actor: Actor, name: str, *, if_match: str | None = None) -> None:
        """Delete a service with its versions; the history of its deployments stays."""
        async with self._access.change(actor, "service.delete", name) as tx:
            require_scope(actor, name)
            entry = self._editable(name)
            require_match(if_match, entry.record)
            self._access.refuse_while_open(name)
            if any(each.record.weight for each in entry.versions.values()):
                # Made anew, its first version would get everything.
                self._access.require_second(actor, name, f"delete the service {name}, which has traffic")
            await self._access.supersede(tx, name)
            tx.delete_service(entry.record.id)
            self._access.add_event(tx, "service.deleted", actor, name)
            tx.on_commit(partial(self._access.catalog.drop_service, name))
        self._access.tally.forget(list(entry.versions))
        self._access.catalog.publish([name])

    async def pause(self, actor: Actor, name: str, body: Explain) -> ServiceRecord:
        """Hold new requests for a while (maintenance)."""
        return await self._set_paused(actor, name, body, paused=True)

    async def resume(self, actor: Actor, name: str, body: Explain) -> ServiceRecord:
        """Let held requests go on, in order."""
        return await self._set_paused(actor, name, body, paused=False)

    async def _set_paused(self, actor: Actor, name: str, body: Explain, *, paused: bool) -> ServiceRecord:
        verb = "pause" if paused else "resume"
        details = {"reason": body.reason} if body.reason else {}
        async with self._access.change(actor, f"service.{verb}", name, details) as tx:
            require_scope(actor, name)
            record = replace(self._access.service(name).record, paused=paused, updated_at=self._access.now())
            tx.put_service(record)
            self._access.add_event(tx, f"service.{verb}d", actor, name, reason=body.reason)
            tx.on_commit(partial(self._access.catalog.put_service, record))
        self._access.catalog.publish([name])
        return record

    def _refuse_taking(self, actor: Actor, name: str, settings: ServiceSettings) -> None:
        """Refuse routes that take requests of services the actor's token does not cover. Problem 403.

        What decides is where requests go, not by which call: making a service moves traffic like a weight.
        """
        require_role(actor, "deployer", "making routes")
        services = self._access.catalog.services
        others = {each: entry.record.settings for each, entry in services.items() if each != name}
        taken = [each for each in losers(settings.routes, others) if not actor.covers(each)]
        if taken:
            raise forbidden(
                f"the routes of {name!r} would take requests of {', '.join(taken)}, "
                f"which the token of {actor.name} does not cover"
            )

    def _editable(self, name: str) -> ServiceEntry:
        """Return a service that may be changed here. Raises Problem 404, or 409 if the file declares it."""
        entry = self._access.service(name)
        if entry.record.source == "file":
            raise conflict(
                f"service {name!r} is declared in the configuration file; change it there",
                "then `kill -HUP` the gateway, or `systemctl reload gateway`",
            )
        return entry

    def _check_settings(self, settings: ServiceSettings) -> None:
        """Refuse urls that lead nowhere good, and TLS files that cannot be used. Raises Problem 422."""
        if not settings.routes:
            raise invalid("/routes", "at least one route is needed")
        self._access.refuse_stand_in(settings)
        if settings.fallback is not None and settings.fallback.url is not None:
            self._access.check_url("/fallback/url", settings.fallback.url, is_target=False)
        for index, hook in enumerate(settings.webhooks):
            self._access.check_url(f"/webhooks/{index}/url", hook.url, is_target=False, is_hook=True)
        try:
            context_of(settings.tls)
        except ConfigError as exc:
            raise invalid("/tls", str(exc)) from exc


def merged(target: Any, patch: Any) -> Any:
    """Return `target` with a JSON merge patch applied (RFC 7396 §2)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _without_replaced(settings: ServiceSettings, patch: dict[str, Any]) -> dict[str, Any]:
    """Return settings as built-in types, less the testers' secrets if `patch` brings others."""
    found: dict[str, Any] = msgspec.to_builtins(settings)
    testers = patch.get("testers")
    if isinstance(testers, dict) and testers.get("values") and found["testers"]:
        found["testers"]["values"] = {}
    return found
