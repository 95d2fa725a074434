"""What is always true, and what becomes true once faults have ended."""

import json
import sqlite3
from collections import Counter
from typing import Any, Final, Protocol

ENDED: Final = ("completed", "rolled_back", "failed")


class Owner(Protocol):
    """The simulation."""

    machine: Any
    system: Any
    clients: Any


class Invariants:
    """Looks at the real store and the real workers, and remembers what it saw."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.broken: list[str] = []
        self.transitions: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self._connection: sqlite3.Connection | None = None
        self._version = -1
        self._rows: dict[str, Any] = {}
        """Deployments as they were stored last."""

    def _read(self) -> None:
        """Read the store, if it has changed."""
        path = self.owner.system.folder / "gateway.db"
        if not path.exists():
            return
        if self._connection is None:
            self._connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return
        self._version = version
        rows = self._connection.execute(
            "SELECT id, status, state FROM gateway_deployment ORDER BY created_at"
        )
        for key, status, state in rows.fetchall():
            self._see(key, status, json.loads(state) if state else {})

    def _see(self, key: str, status: str, state: Any) -> None:
        before = self._rows.get(key)
        self._rows[key] = (status, state)
        was = before[0] if before is not None else "new"
        if was == status:
            return
        self.transitions[f"{was}>{status}"] += 1
        if status in ENDED:
            self.ends[status] += 1
        if was in ENDED:
            self.broken.append(f"deployment {key} went from {was} to {status}")

    def open_deployment(self) -> str | None:
        """Return the id of the open one, as stored."""
        self._read()
        return next((key for key, (status, _) in self._rows.items() if status not in ENDED), None)

    def last_deployment(self) -> str | None:
        """Return the id of the newest, as stored."""
        return next(reversed(self._rows), None)

    def rolled_back(self, key: str, status: int) -> None:
        """Somebody asked for a rollback, and was answered."""

    def always(self) -> None:
        self._read()

    def at_rest(self) -> None:
        self._read()
        for key, (status, state) in self._rows.items():
            if status not in (*ENDED, "paused"):
                self.broken.append(
                    f"deployment {key} is {status}, {state.get('phase')}, after all faults ended"
                )
        if self.owner.clients.busy:
            self.broken.append(f"requests {sorted(self.owner.clients.busy)} never got an answer")
