"""The call that shows everything at a glance."""

from collections.abc import Mapping

from gateway.actions.overview import ServiceGlance, VersionGlance
from gateway.actions.reports import quantile_ms
from gateway.admin import views
from gateway.admin.call import Call, Reply
from gateway.admin.schemas import OverviewView, ServiceGlanceView, VersionGlanceView, view
from gateway.store.records import AcknowledgementRecord


async def get(call: Call) -> Reply:
    """Show all services with versions, rates and rollouts."""
    overview = call.actions.overview
    found = await overview.services(call.query.service_name)
    if call.query.hour:
        found = await overview.with_hours(found)
    freeze = overview.freeze_state()
    shown = [each for glance in found for each in (glance.deployment, glance.last) if each is not None]
    seen = await call.actions.acknowledgements.of({record.id for record in shown})
    items = [_service(each, seen) for each in found]
    alerts = await call.actions.acknowledgements.alerts(call.query.service_name)
    return Reply(
        value=OverviewView(frozen=freeze.frozen, freeze_reason=freeze.reason, items=items, alerts=alerts)
    )


def _service(glance: ServiceGlance, seen: Mapping[str, AcknowledgementRecord]) -> ServiceGlanceView:
    return view(
        ServiceGlanceView,
        glance.record,
        routes=glance.record.settings.routes,
        versions=[_version(each) for each in glance.versions],
        deployment=views.deployment(glance.deployment, seen) if glance.deployment else None,
        hour=glance.hour[0] if glance.hour else None,
        hour_errors=glance.hour[1] if glance.hour else None,
        last=views.deployment(glance.last, seen) if glance.last else None,
    )


def _version(glance: VersionGlance) -> VersionGlanceView:
    lately = glance.lately
    return view(
        VersionGlanceView,
        glance.record,
        share=round(glance.share, 2),
        rate=round(lately.rate, 2),
        error_percent=round(100 * lately.errors / lately.answers, 2) if lately.answers else None,
        p95_ms=quantile_ms(lately.latency, 0.95),
        in_flight=glance.in_flight,
        streams=glance.streams,
    )
