"""The command line in front of an admin API that answers from a table."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from gateway.cli import connect, waiting
from gateway.cli.client import BASE, AdminClient, Reply
from gateway.cli.commands import run


class CannedApi(AdminClient):
    """Answers what a test put under "METHOD path"; a list is used up one by one, its last answer stays."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "gw_x")
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, object]] = []
        self.sent_fields: list[Mapping[str, str]] = []
        self.beside: list[AdminClient] = []

    def others(self) -> Iterator[AdminClient]:
        return iter(self.beside)

    def raw(
        self, method: str, target: str, *, body: object = None, fields: Mapping[str, str] | None = None
    ) -> Reply:
        key = f"{method} {target.removeprefix(BASE + '/').partition('?')[0]}"
        self.asked.append((f"{method} {target.removeprefix(BASE + '/')}", body))
        self.sent_fields.append(fields or {})
        answer = self.answers[key]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        status, value, *more = answer if isinstance(answer, tuple) else (200, answer)
        return Reply(status, b"" if value is None else json.dumps(value).encode(), *more)


Cli = Callable[..., int]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> CannedApi:
    canned = CannedApi()
    monkeypatch.setattr(connect, "connect", lambda *_: canned)
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 0.0)
    return canned


@pytest.fixture
def cli() -> Cli:
    return lambda *arguments: run([str(argument) for argument in arguments])


def page(*items: object, cursor: str | None = None) -> dict[str, object]:
    return {"items": list(items), "next": cursor}


@pytest.fixture
def made() -> Any:
    """Makes the JSON of a version or deployment with some fields changed."""

    class Made:
        page = staticmethod(page)

        @staticmethod
        def version(**changed: object) -> dict[str, object]:
            return {
                "id": "ver-1",
                "serviceId": "svc-1",
                "serviceName": "auth",
                "version": "v1.1",
                "url": "http://127.0.0.1:7201",
                "replicas": [],
                "weight": 0,
                "share": 0.0,
                "isActive": False,
                "status": "testing",
                "healthStatus": "healthy",
                "circuitState": "CLOSED",
                "draining": False,
                "drained": False,
                "createdAt": "2026-01-02T03:04:05Z",
                **changed,
            }

        @staticmethod
        def glance(*versions: dict[str, object], **changed: object) -> dict[str, object]:
            """Return the overview of one service. changed: fields of the service; `frozen` of the whole."""
            frozen = changed.pop("frozen", False)
            service = {
                "id": "svc-1",
                "name": "auth",
                "source": "api",
                "currentVersionId": "ver-0",
                "paused": False,
                "routes": [{"host": "*", "path": "/api"}],
                "versions": list(versions),
                "deployment": None,
                "last": None,
                **changed,
            }
            return {"frozen": frozen, "freezeReason": "launch day" if frozen else "", "items": [service]}

        @staticmethod
        def seen(**changed: object) -> dict[str, object]:
            """Return a version as the overview has it."""
            numbers = {"share": 0.0, "rate": 0.0, "errorPercent": None, "p95Ms": None, "inFlight": 0}
            return {**Made.version(), **numbers, "streams": 0, **changed}

        @staticmethod
        def deployment(**changed: object) -> dict[str, object]:
            return {
                "id": "dep-1",
                "serviceName": "auth",
                "fromVersion": "v1.0",
                "toVersion": "v1.1",
                "fromVersionId": "ver-0",
                "toVersionId": "ver-1",
                "status": "rolling",
                "phase": "stepping",
                "strategy": "canary",
                "trafficPercent": 10,
                "currentStep": 0,
                "steps": [10, 50, 100],
                "remainingMs": 192_000,
                "summary": "hold: 3 of 20 requests seen",
                "warning": "",
                "errorMessage": None,
                "createdBy": "alice",
                "startedAt": "2026-01-02T03:04:05Z",
                "createdAt": "2026-01-02T03:04:05Z",
                **changed,
            }

    return Made
