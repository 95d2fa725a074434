"""One call of the admin API: what a handler is given, what it gives back, and the row that leads to it."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from gateway.actions.access import Actor, etag
from gateway.actions.actions import Actions
from gateway.actions.problems import FieldError, Problem
from gateway.admin.parse import NoBody
from gateway.admin.queries import PageQuery
from gateway.admin.ratelimit import Budget
from gateway.admin.schemas import Listing, view
from gateway.admin.sessions import Sessions
from gateway.core.settings.base import Settings
from gateway.store.api import Page
from gateway.store.records import ApprovalRecord, Role

BASE: Final = "/api/v1/admin"


class NoQuery(Settings):
    """The query of a call that takes none."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call that has been authenticated, admitted and parsed."""

    actions: Actions
    actor: Actor
    params: Mapping[str, str]
    """What the braces of the path template matched."""
    fields: Mapping[str, str]
    """Header fields by lower-case name."""
    query: Any
    body: Any
    sessions: Sessions
    perform: "Callable[[ApprovalRecord, Actor], Awaitable[Reply]] | None" = None
    """Carries out a call that was kept, as whoever asked for it."""

    @property
    def id(self) -> str:
        """Return the path's `{id}`."""
        return self.params["id"]

    @property
    def name(self) -> str:
        """Return the path's `{name}`."""
        return self.params["name"]

    @property
    def if_match(self) -> str | None:
        """Return the If-Match field."""
        return self.fields.get("if-match")


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler answers. value: a view, encoded as JSON; None: no body."""

    value: object = None
    stream: AsyncIterator[bytes] | None = None
    """A body that comes piece by piece, instead of a value; `fields` name its type."""
    status: int | None = None
    """None: the route's."""
    fields: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Call], Coroutine[Any, Any, Reply]]


class Route(NamedTuple):
    """One row of the route table: all that is known of a call, for dispatch, role check and OpenAPI alike."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    """Template under the base: `deployment/versions/{id}`."""
    role: Role
    action: str
    """Its name in the audit trail, and its operationId: `version.create`."""
    handler: Handler
    summary: str
    answer: Any
    """The view it answers with; None: 204 without a body."""
    body: Any = NoBody
    query: Any = NoQuery
    status: int = 200
    budget: Budget | None = "changes"
    """Which allowance a change draws on. None: never limited."""

    @property
    def is_change(self) -> bool:
        """Return whether a call may change something (RFC 9110 §9.2.1)."""
        return self.method != "GET"


def created(path: str, reply: Reply) -> Reply:
    """Return a reply with the Location of what was made. path: under the base."""
    return msgspec.structs.replace(reply, fields=(*reply.fields, ("Location", f"{BASE}/{path}")))


def page(kind: type[Any], records: Page[Any]) -> Reply:
    """Return a piece of a list, each record as a `kind`."""
    return listing([view(kind, record) for record in records.items], records.next)


def part(
    kind: type[Any], records: Iterable[Any], query: PageQuery, key: Callable[[Any], tuple[str, ...]]
) -> Reply:
    """Return a piece of a list that is whole in memory, in the order of `key`.

    The cursor is the key of the last record shown: what comes or goes between two pieces makes none of the
    others appear twice or not at all.
    """
    ordered = sorted(records, key=key)
    if query.after is not None:
        after = _key_of(query.after)
        ordered = [record for record in ordered if key(record) > after]
    shown = ordered[: query.limit]
    cursor = _cursor_of(key(shown[-1])) if len(shown) < len(ordered) else None
    return listing([view(kind, record) for record in shown], cursor)


def _cursor_of(key: tuple[str, ...]) -> str:
    return urlsafe_b64encode(msgspec.json.encode(key)).rstrip(b"=").decode()


def _key_of(cursor: str) -> tuple[str, ...]:
    """Return the key a cursor stands for. Raises Problem 422."""
    try:
        text = urlsafe_b64decode(cursor.encode("ascii") + b"==")
        return msgspec.json.decode(text, type=tuple[str, ...])
    except (ValueError, msgspec.DecodeError):
        raise Problem(
            422,
            "Unprocessable Content",
            "?after: not a cursor of this list",
            [FieldError("?after", "not a cursor")],
        ) from None


def listing(items: list[Any], cursor: str | None = None) -> Reply:
    """Return views as a piece of a list; cursor: of the following piece."""
    return Reply(value=Listing(items=items, next=cursor))


def tagged(value: object, record: Any) -> Reply:
    """Return a reply that shows `record`, with its ETag for a later If-Match."""
    return Reply(value=value, fields=(("ETag", etag(record)),))
