"""The query parameters calls take."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from gateway.core.settings.base import Settings
from gateway.store.records import DeploymentStatus

Limit = Annotated[int, Meta(ge=1, le=200)]
Text = Annotated[str, Meta(max_length=200)]
EventId = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""No store counts further."""


class PageQuery(Settings):
    """Which piece of a list. after: a `next` cursor of the same list."""

    after: Text | None = None
    limit: Limit = 50


class VersionsQuery(PageQuery):
    """Versions of one service, or all."""

    service_name: Text | None = None


class OverviewQuery(Settings):
    """One service, or all. hour: with what was answered in each of the last sixty minutes."""

    service_name: Text | None = None
    hour: bool = False


class DeploymentsQuery(PageQuery):
    """Deployments of one service, or all; in one status, or any."""

    service_name: Text | None = None
    status: DeploymentStatus | None = None


class DeploymentEventsQuery(Settings):
    """Which events of a deployment. after: an event id."""

    after: EventId = 0
    limit: Limit = 100


class ApprovalsQuery(PageQuery):
    """What was asked of second persons; in one state, or any."""

    state: Literal["pending", "approved", "carried_out", "failed", "withdrawn"] | None = None


class WindowsQuery(Settings):
    """Which windows of a deployment. since: only what began from then on."""

    since: Annotated[datetime, Meta(tz=True)] | None = None


class EventsQuery(Settings):
    """Which events. after: an event id, as Last-Event-ID, which wins.

    Neither: a stream begins now, and a list ends with the newest.
    """

    after: EventId | None = None
    limit: Limit = 100
    """Only for `Accept: application/json`."""
    service_name: Text | None = None


class AuditQuery(PageQuery):
    """The audit trail, by actor or action."""

    actor: Text | None = None
    action: Text | None = None
