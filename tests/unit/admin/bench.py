"""A store, actions and catalog that keep what they are told, and the admin server on top of them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from gateway.actions.tokens import digest
from gateway.admin.auth import Authenticator
from gateway.admin.server import AdminServer
from gateway.control.tally import Tally
from gateway.http1.app import Request
from gateway.store.api import Page
from gateway.store.records import (
    AuditEntry,
    DeploymentRecord,
    EventRecord,
    NodeState,
    Role,
    TokenRecord,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def nothing_waits() -> None:
    """Stand for a hub that has sent every table."""


class FakeStore:
    """Tokens, audit rows and events in memory."""

    epoch = 3
    follows = False

    def __init__(self) -> None:
        self.token_records: dict[str, TokenRecord] = {}
        self.audit_rows: list[AuditEntry] = []
        self.event_records: list[EventRecord] = []
        self.deployment_records: list[DeploymentRecord] = []
        self.node_states: list[NodeState] = []

    @asynccontextmanager
    async def transaction(self, *, anywhere: bool = False) -> AsyncIterator["FakeStore"]:
        yield self

    def add_audit(self, entry: AuditEntry) -> None:
        self.audit_rows.append(entry)

    def put_token(self, record: TokenRecord) -> None:
        self.token_records[record.hash] = record

    async def tokens(self) -> list[TokenRecord]:
        return list(self.token_records.values())

    async def token_by_hash(self, hashed: str) -> TokenRecord | None:
        return self.token_records.get(hashed)

    async def nodes(self) -> list[NodeState]:
        return self.node_states

    async def deployments(self, **_: object) -> Page[DeploymentRecord]:
        return Page(self.deployment_records)

    async def events(self, *, after: int, limit: int, service: str | None = None) -> list[EventRecord]:
        found = (event for event in self.event_records if event.id > after)
        return [event for event in found if service in (None, event.service)][:limit]

    async def last_event_id(self) -> int:
        return self.event_records[-1].id if self.event_records else 0


class FakeActions:
    """Answers each action with what a test put into `answers`, and keeps how it was called."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"reports.shares": {}, "acknowledgements.of": {}}
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, noun: str) -> "FakeNoun":
        return FakeNoun(self, noun)


class FakeNoun:
    """The actions of one noun: `versions`, `tokens`."""

    def __init__(self, actions: FakeActions, noun: str) -> None:
        self._actions = actions
        self._noun = noun
        self.node = "a"

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if verb == "unstored_at":
            return lambda deployment_id: ""
        name = f"{self._noun}.{verb}"

        async def action(*args: Any, **kwargs: Any) -> Any:
            if name not in ("reports.shares", "acknowledgements.of"):  # what views need besides records
                self._actions.calls.append((name, args, kwargs))
            answer = self._actions.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return action


class Bench:
    """The server with everything around it in the test's hands."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.why_unready: str | None = None
        self.store = FakeStore()
        self.actions = FakeActions()
        self.catalog = SimpleNamespace(services={})
        self.hub = SimpleNamespace(apply_us={0: 250}, workers=list, sent=nothing_waits)
        self.tally = Tally()
        self.watch = SimpleNamespace(problem="", audit=SimpleNamespace(ok=True, reason=""))
        state = SimpleNamespace(
            restarts={"exited": 2},
            unready=lambda: self.why_unready,
            is_reloaded=True,
            certificate_expiries=lambda: {("0.0.0.0:443", "a.example"): 1_800_000_000.0},
        )
        limits = SimpleNamespace(starts_per_minute=2, changes_per_minute=5)
        auth: Any = Authenticator(
            self.store,  # type: ignore[arg-type]
            failed_logins=3,
            clock=lambda: self.now,
            utc=lambda: AT,
        )
        parts: dict[str, Any] = {
            "actions": self.actions,
            "auth": auth,
            "store": self.store,
            "catalog": self.catalog,
            "tally": self.tally,
            "hub": self.hub,
            "state": state,
            "watch": self.watch,
            "limits": limits,
        }
        self.auth = auth
        self.server = AdminServer(**parts, clock=lambda: self.now)

    def token(self, role: Role) -> str:
        """Return a token of that role, known to the store."""
        token = f"gw_{role}-token"
        self.put_token(token, name=role, role=role)
        return token

    def put_token(self, token: str, *, name: str, role: Role, **more: Any) -> TokenRecord:
        """Let the store and the listener know a token."""
        record = TokenRecord(
            id=f"id-{name}",
            name=name,
            role=role,
            prefix=token[:9],
            hash=digest(token),
            created_by="test",
            created_at=AT,
            last_used_at=AT,
            **more,
        )
        self.store.put_token(record)
        self.auth.learn(record)
        return record

    def revoke_all(self) -> None:
        """Revoke every token."""
        for record in list(self.store.token_records.values()):
            self.auth.learn(replace(record, revoked_at=AT))

    async def ask(
        self,
        method: str,
        path: str,
        *,
        role: Role | None = "admin",
        token: str | None = None,
        query: str = "",
        body: bytes = b"",
        **fields: str,
    ) -> Any:
        """Return the server's response to one request."""
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        token = token or (self.token(role) if role else None)
        if token is not None:
            named["authorization"] = f"Bearer {token}"
        return await self.server.handle(Request(method, path, query, named, body, "127.0.0.1"))
