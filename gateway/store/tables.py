"""Records <-> rows: which table keeps which record, and how each field becomes a column."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import NoneType, UnionType
from typing import Any, Final, Generic, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from gateway.errors import StoreError
from gateway.store.records import (
    AcknowledgementRecord,
    ApprovalRecord,
    AuditRecord,
    BreakerRecord,
    DecisionRecord,
    DeploymentRecord,
    EventRecord,
    HealthCheckRecord,
    Record,
    ServiceRecord,
    SmokeRecord,
    StatisticRecord,
    TokenRecord,
    VersionRecord,
    WindowRecord,
)

R = TypeVar("R", bound=Record)

_PLAIN: Final = (str, int, float, bool, bytes)
_COLUMNS: Final = {"generation": "stage", "limit": "statistic_limit"}
"""Fields whose column has another name: columns are only ever added, never renamed, and LIMIT is SQL."""


def time_text(at: datetime) -> str:
    """Return an aware time as RFC 3339 text of one width in UTC, so that text order is time order."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def json_text(value: object) -> str:
    """Return `value` as JSON."""
    return msgspec.json.encode(value).decode()


def _bare(kind: Any) -> Any:
    """Return the one type of an optional; other types as they are."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    kinds = [arg for arg in get_args(kind) if arg is not NoneType]
    return kinds[0] if len(kinds) == 1 else kind


class Table(Generic[R]):
    """One table and the record type it keeps: a column for each field, of the field's name unless
    `_COLUMNS` says otherwise.

    Times are text, booleans 0 and 1, text, numbers and bytes themselves; all else is JSON. A put names
    only the columns of this release, so columns that a newer one added keep what they hold.
    """

    def __init__(self, kind: type[R], name: str, *, key: str | None = None, of_version: bool = False) -> None:
        """key: the column that names a row, if rows are replaced. of_version: rows die with their version."""
        self._kind = kind
        self.name = name
        fields = {field.name: _bare(field.type) for field in msgspec.structs.fields(kind)}
        self.columns = tuple(fields)
        self._times = frozenset(name for name, kind in fields.items() if kind is datetime)
        self._json = frozenset(
            name
            for name, kind in fields.items()
            if name not in self._times and kind not in _PLAIN and get_origin(kind) is not Literal
        )
        self._writers = tuple((name, self._writer(name, kind)) for name, kind in fields.items())
        self.stored = stored = {field: _COLUMNS.get(field, field) for field in self.columns}
        names = ", ".join(stored.values())
        slots = ", ".join("?" * len(self.columns))
        self.select = f"SELECT {names} FROM {name}"
        self.insert = f"INSERT INTO {name} ({names}) VALUES ({slots})"
        if of_version:
            exists = (
                f"EXISTS (SELECT 1 FROM {VERSION_TABLE} WHERE id = ?{self.columns.index('version_id') + 1})"
            )
            numbered = ", ".join(f"?{n + 1}" for n in range(len(self.columns)))
            self.insert = f"INSERT INTO {name} ({names}) SELECT {numbered} WHERE {exists}"
        sets = ", ".join(f"{name} = excluded.{name}" for field, name in stored.items() if field != key)
        self.put = f"{self.insert} ON CONFLICT ({key}) DO UPDATE SET {sets}" if key else self.insert

    def row(self, record: R) -> tuple[Any, ...]:
        """Return the values of `columns`."""
        found: list[Any] = []
        for column, write in self._writers:
            value = getattr(record, column)
            found.append(value if value is None or write is None else write(value))
        return tuple(found)

    def record(self, row: Sequence[Any]) -> R:
        """Return the record a row holds.

        Raises StoreError, naming the table and the row, if it holds none.
        """
        try:
            values = {c: self._plain(c, v) for c, v in zip(self.columns, row, strict=True)}
            return msgspec.convert(values, self._kind, strict=False, str_keys=True, builtin_types=(bytes,))
        except (msgspec.MsgspecError, ValueError) as exc:
            raise StoreError(f"{self.name}, row {row[self._label]!r}: {exc}") from exc

    @property
    def _label(self) -> int:
        return self.columns.index("id") if "id" in self.columns else 0

    def _writer(self, column: str, kind: Any) -> Callable[[Any], Any] | None:
        """Return what makes the stored value of a column's; None: it is stored as it is."""
        if column in self._times:
            return time_text
        if column in self._json:
            return json_text
        return int if kind is bool else None

    def _plain(self, column: str, value: Any) -> Any:
        return msgspec.json.decode(value) if column in self._json and value is not None else value


VERSION_TABLE: Final = "gateway_service_version"

SERVICES: Final = Table(ServiceRecord, "gateway_service_config", key="id")
VERSIONS: Final = Table(VersionRecord, VERSION_TABLE, key="id")
DEPLOYMENTS: Final = Table(DeploymentRecord, "gateway_deployment", key="id")
HEALTH_CHECKS: Final = Table(HealthCheckRecord, "gateway_health_check", of_version=True)
EVENTS: Final = Table(EventRecord, "gateway_event")
DECISIONS: Final = Table(DecisionRecord, "gateway_decision")
SMOKE_RESULTS: Final = Table(SmokeRecord, "gateway_smoke_result", of_version=True)
WINDOWS: Final = Table(WindowRecord, "gateway_window")
STATISTICS: Final = Table(StatisticRecord, "gateway_statistic")
ACKNOWLEDGEMENTS: Final = Table(AcknowledgementRecord, "gateway_acknowledgement", key="deployment_id")
APPROVALS: Final = Table(ApprovalRecord, "gateway_approval", key="id")
AUDIT: Final = Table(AuditRecord, "gateway_audit")
TOKENS: Final = Table(TokenRecord, "gateway_token", key="id")
BREAKERS: Final = Table(BreakerRecord, "gateway_breaker", key="key", of_version=True)

ALL: Final[tuple[Table[Any], ...]] = (
    SERVICES,
    VERSIONS,
    DEPLOYMENTS,
    HEALTH_CHECKS,
    EVENTS,
    DECISIONS,
    SMOKE_RESULTS,
    WINDOWS,
    STATISTICS,
    ACKNOWLEDGEMENTS,
    APPROVALS,
    AUDIT,
    TOKENS,
    BREAKERS,
)
