"""The table of calls: the one place that says what may be asked, by whom, with what, and what comes back.

Dispatch, role checks and the OpenAPI document are all read off it.
"""

from typing import Any, Final
from urllib.parse import unquote

from gateway.actions import bodies
from gateway.actions.charts import RolloutWindows
from gateway.actions.problems import Problem
from gateway.actions.reports import ServiceHealth, ServiceStats
from gateway.actions.upkeep import AuditFound
from gateway.actions.versions import TestReport
from gateway.actions.whatif import Replays
from gateway.admin.call import Route
from gateway.admin.calls import (
    approvals,
    deployments,
    gateway,
    nodes,
    overview,
    services,
    sessions,
    upkeep,
    versions,
)
from gateway.admin.queries import (
    ApprovalsQuery,
    AuditQuery,
    DeploymentEventsQuery,
    DeploymentsQuery,
    EventsQuery,
    OverviewQuery,
    PageQuery,
    VersionsQuery,
    WindowsQuery,
)
from gateway.admin.schemas import (
    ApprovalView,
    AuditReportView,
    AuditView,
    ConfirmedView,
    CreatedTokenView,
    DecisionView,
    DeploymentView,
    EventView,
    GatewayView,
    Listing,
    NodeView,
    OverviewView,
    ServiceView,
    SignInLinkView,
    SmokeView,
    TokenView,
    VersionView,
    YouView,
)
from gateway.control.rollouts.rows import FreezeState
from gateway.control.upstreams.drains import DrainState

EVENTS: Final = Route(
    "GET", "events", "viewer", "event.list", gateway.events,
    "Server-Sent Events; resumes after Last-Event-ID. As JSON: a list", Listing[EventView], query=EventsQuery,
)  # fmt: skip

ROUTES: Final = (
    # versions
    Route(
        "POST", "deployment/versions", "operator", "version.create", versions.create,
        "Register a version, and its service if routes come along",
        VersionView, bodies.CreateVersion, status=201,
    ),
    Route(
        "GET", "deployment/versions", "viewer", "version.list", versions.list_all,
        "List versions", Listing[VersionView], query=VersionsQuery,
    ),
    Route(
        "GET", "deployment/versions/{id}", "viewer", "version.get", versions.get,
        "Show a version", VersionView,
    ),
    Route(
        "PATCH", "deployment/versions/{id}", "operator", "version.patch", versions.patch,
        "Change a version; its weight needs deployer", VersionView, bodies.PatchVersion,
    ),
    Route(
        "DELETE", "deployment/versions/{id}", "operator", "version.delete", versions.delete,
        "Delete a drained version", None, status=204,
    ),
    Route(
        "POST", "deployment/versions/{id}/test", "operator", "version.test", versions.test,
        "Probe a version now and run smoke tests", TestReport, bodies.TestVersion,
    ),
    Route(
        "POST", "deployment/versions/{id}/drain", "operator", "version.drain", versions.drain,
        "Send a version nothing new; one with weight needs deployer", DrainState, bodies.DrainVersion,
    ),
    Route(
        "GET", "deployment/versions/{id}/drain", "viewer", "version.drain_state", versions.drain_state,
        "Show what still runs at a version", DrainState,
    ),
    # deployments
    Route(
        "POST", "deployment/start", "deployer", "deployment.start", deployments.start,
        "Start a rollout; Idempotency-Key makes it repeatable", DeploymentView, bodies.StartDeployment,
        status=201, budget="starts",
    ),
    Route(
        "POST", "deployment/whatif", "viewer", "deployment.whatif", deployments.whatif,
        "Replay earlier rollouts under other settings", Replays, bodies.WhatIf,
    ),
    Route(
        "GET", "deployment", "viewer", "deployment.list", deployments.list_all,
        "List rollouts, newest first", Listing[DeploymentView], query=DeploymentsQuery,
    ),
    Route(
        "GET", "deployment/{id}", "viewer", "deployment.get", deployments.get,
        "Show a rollout", DeploymentView,
    ),
    Route(
        "PUT", "deployment/{id}/traffic", "deployer", "deployment.traffic", deployments.set_traffic,
        "Set the new version's share; the step's clock starts again", DeploymentView, bodies.Traffic,
    ),
    Route(
        "POST", "deployment/{id}/rollback", "deployer", "deployment.rollback", deployments.rollback,
        "Move all traffic back, now", DeploymentView, bodies.Explain, budget=None,
    ),
    Route(
        "POST", "deployment/{id}/complete", "deployer", "deployment.complete", deployments.complete,
        "End a rollout that is at 100 %", DeploymentView, bodies.Explain,
    ),
    Route(
        "POST", "deployment/{id}/pause", "deployer", "deployment.pause", deployments.pause,
        "Hold a rollout where it is", DeploymentView, bodies.Explain, budget=None,
    ),
    Route(
        "POST", "deployment/{id}/resume", "deployer", "deployment.resume", deployments.resume,
        "Let a paused rollout go on", DeploymentView, bodies.Explain,
    ),
    Route(
        "POST", "deployment/{id}/promote", "deployer", "deployment.promote", deployments.promote,
        "Take the next step now, or all traffic", DeploymentView, bodies.Promote,
    ),
    Route(
        "GET", "deployment/{id}/decisions", "viewer", "deployment.decisions", deployments.decisions,
        "List verdicts with their evidence, newest first", Listing[DecisionView], query=PageQuery,
    ),
    Route(
        "GET", "deployment/{id}/events", "viewer", "deployment.events", deployments.events,
        "List what happened to a rollout, oldest first", Listing[EventView], query=DeploymentEventsQuery,
    ),
    Route(
        "GET", "deployment/{id}/windows", "viewer", "deployment.windows", deployments.windows,
        "Show how a rollout went: windows of both versions, the judge's statistic, decisions",
        RolloutWindows, query=WindowsQuery,
    ),
    Route(
        "POST", "deployment/{id}/ack", "operator", "deployment.ack", deployments.acknowledge,
        "Say that a rollback or a pause was looked at", DeploymentView, bodies.Acknowledge,
    ),
    Route(
        "GET", "deployment/{id}/smoke", "viewer", "deployment.smoke", deployments.smoke,
        "List the smoke tests run for a rollout, newest first", Listing[SmokeView],
    ),
    # services
    Route(
        "GET", "overview", "viewer", "overview.get", overview.get,
        "Show all services with versions, rates and open rollouts", OverviewView, query=OverviewQuery,
    ),
    Route(
        "POST", "services", "admin", "service.create", services.create,
        "Make a service", ServiceView, bodies.CreateService, status=201,
    ),
    Route(
        "GET", "services", "viewer", "service.list", services.list_all,
        "List services", Listing[ServiceView], query=PageQuery,
    ),
    Route("GET", "services/{name}", "viewer", "service.get", services.get, "Show a service", ServiceView),
    Route(
        "PATCH", "services/{name}", "admin", "service.patch", services.patch,
        "Change the settings of a service made through the API", ServiceView, dict[str, Any],
    ),
    Route(
        "DELETE", "services/{name}", "admin", "service.delete", services.delete,
        "Delete a service made through the API", None, status=204,
    ),
    Route(
        "GET", "services/{name}/health", "viewer", "service.health", services.health,
        "Show versions, endpoints and recent probes", ServiceHealth,
    ),
    Route(
        "GET", "services/{name}/stats", "viewer", "service.stats", services.stats,
        "Show what was counted, by version", ServiceStats,
    ),
    Route(
        "POST", "services/{name}/undo", "deployer", "service.undo", services.undo,
        "Take back the last release", DeploymentView, bodies.Explain, budget=None,
    ),
    Route(
        "POST", "services/{name}/pause", "deployer", "service.pause", services.pause,
        "Hold new requests for up to 30 s each", ServiceView, bodies.Explain, budget=None,
    ),
    Route(
        "POST", "services/{name}/resume", "deployer", "service.resume", services.resume,
        "Let requests through again", ServiceView, bodies.Explain,
    ),
    # the gateway itself
    EVENTS,
    Route("GET", "gateway", "viewer", "gateway.get", gateway.info, "Show the process in charge", GatewayView),
    Route(
        "POST", "gateway/upgrade", "admin", "gateway.upgrade", gateway.upgrade,
        "Start the release now on disk and hand over to it", GatewayView,
    ),
    Route(
        "GET", "nodes", "viewer", "node.list", nodes.list_all,
        "List the gateways that share the store", Listing[NodeView], query=PageQuery,
    ),
    Route(
        "DELETE", "nodes/{name}", "admin", "node.remove", nodes.remove,
        "Forget a gateway that will not come back, by name or id", None, status=204,
    ),
    Route(
        "GET", "audit/verify", "admin", "audit.verify", upkeep.verify,
        "Walk along the whole audit trail", AuditReportView,
    ),
    Route(
        "POST", "audit/acknowledge", "admin", "audit.acknowledge", upkeep.acknowledge,
        "Say that a break of the trail was looked into: gateway_audit_ok is 1 again",
        AuditFound, bodies.Acknowledge,
    ),
    Route(
        "GET", "backup", "admin", "gateway.backup", upkeep.backup,
        "Stream a copy of the store, as it is at one moment", bytes,
    ),
    Route(
        "GET", "audit", "admin", "audit.list", gateway.audit,
        "List every change, allowed or refused, newest first", Listing[AuditView], query=AuditQuery,
    ),
    Route(
        "GET", "tokens", "admin", "token.list", gateway.list_tokens,
        "List tokens", Listing[TokenView], query=PageQuery,
    ),
    Route(
        "POST", "tokens", "admin", "token.create", gateway.create_token,
        "Make a token; it is shown this once", CreatedTokenView, bodies.CreateToken, status=201,
    ),
    Route(
        "POST", "tokens/{id}/rotate", "admin", "token.rotate", gateway.rotate_token,
        "Put a new secret in a token's place; it is shown this once",
        CreatedTokenView, bodies.RotateToken, status=201,
    ),
    Route(
        "DELETE", "tokens/{id}", "admin", "token.revoke", gateway.revoke_token,
        "Revoke a token", None, status=204,
    ),
    Route(
        "POST", "session", "viewer", "session.begin", sessions.begin,
        "Sign a browser in: a cookie stands for the token, for 12 hours at most", YouView, budget=None,
    ),
    Route(
        "POST", "session/link", "viewer", "session.link", sessions.link,
        "Make a link that signs one browser in, once, within ten minutes",
        SignInLinkView, status=201,
    ),
    Route(
        "DELETE", "session", "viewer", "session.end", sessions.end,
        "Sign a browser out", None, status=204, budget=None,
    ),
    Route(
        "GET", "approvals", "viewer", "approval.list", approvals.list_all,
        "List calls that wait for a second person, or did, newest first",
        Listing[ApprovalView], query=ApprovalsQuery,
    ),
    Route(
        "GET", "approvals/{id}", "viewer", "approval.get", approvals.get,
        "Show a call that waits for a second person, or did", ApprovalView,
    ),
    Route(
        "POST", "approvals/{id}", "deployer", "approval.confirm", approvals.confirm,
        "Confirm a call as the second person: it is carried out as it was asked", ConfirmedView,
    ),
    Route(
        "DELETE", "approvals/{id}", "operator", "approval.withdraw", approvals.withdraw,
        "Say no to a call that waits", ApprovalView,
    ),
    Route(
        "GET", "freeze", "viewer", "freeze.get", gateway.get_freeze,
        "Say whether starts are refused", FreezeState,
    ),
    Route(
        "PUT", "freeze", "admin", "freeze.put", gateway.put_freeze,
        "Refuse starts and hold advances, or allow them again; rollbacks always work",
        FreezeState, bodies.Freeze,
    ),
)  # fmt: skip

Methods = dict[str, Route]


class Table:
    """Finds the calls of a path. A literal segment beats a placeholder."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._paths: dict[tuple[str, ...], Methods] = {}
        for route in routes:
            methods = self._paths.setdefault(tuple(route.path.split("/")), {})
            if route.method in methods:
                raise ValueError(f"two rows for {route.method} {route.path}")
            methods[route.method] = route
        # Placeholders sort after literals ("{" is above every letter), so the first match is the most
        # literal.
        self._templates = sorted(self._paths)

    def match(self, path: str) -> tuple[Methods, dict[str, str]]:
        """Return a path's routes by method, and its parameters. path: under the base. Raises Problem 404."""
        segments = [unquote(segment) for segment in path.split("/")]
        for template in self._templates:
            params = _match(template, segments)
            if params is not None:
                return self._paths[template], params
        raise Problem(404, "Not Found", f"there is no call {path!r}", next_step="/docs lists all calls")


def _match(template: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    if len(template) != len(segments):
        return None
    params = {}
    for want, got in zip(template, segments, strict=True):
        if want.startswith("{") and got:
            params[want[1:-1]] = got
        elif want != got:
            return None
    return params
