"""Anybody's words, in anybody's terminal: they steer nothing, and look like no line of ours."""

import json
from typing import Any

import pytest

from gateway.cli.client import Reply, refusal
from gateway.cli.logs import request_line
from gateway.cli.text import printable

ESCAPES = "oops\x1b[2J\x1b]0;owned\x07\r\nfake line\u202eabc\x9b31m"
SHOWN = r"oops\x1b[2J\x1b]0;owned\x07  fake line\u202eabc\x9b31m"


def test_what_steers_a_terminal_is_seen_instead() -> None:
    assert printable(ESCAPES) == SHOWN
    assert printable("v1 → v2, naïve ✓ 日本") == "v1 → v2, naïve ✓ 日本"
    assert printable({"a": [ESCAPES, 1, None]}) == {"a": [SHOWN, 1, None]}


def test_settings_are_handed_on_as_they_are() -> None:
    """`gateway export` writes them to a file that is applied again."""
    kept = {"settings": {"fallback": {"body": "two\nlines"}}, "smokeTests": [{"body": "a\tb"}]}
    assert printable(kept) == kept


AT = "2026-01-02T03:04:05Z"


def test_a_reason_is_one_line_for_people(
    api: Any, cli: Any, made: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    event = {
        "id": 1,
        "at": AT,
        "kind": "deployment.paused",
        "service": "auth",
        "version": "v1",
        "actor": "ann",
    }
    api.answers["GET events"] = made.page({**event, "data": {"reason": ESCAPES, "text": ESCAPES}})
    assert cli("events", "-n", "5") == 0
    out = capsys.readouterr().out
    assert SHOWN in out
    assert len(out.splitlines()) == 1


def test_what_scripts_read_is_whole(
    api: Any, cli: Any, made: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": 1, "at": AT, "actor": "ann", "action": "a.b", "resource": "a", "resourceId": "1"}
    more = {"allowed": True, "details": {"reason": ESCAPES}, "address": ESCAPES}
    api.answers["GET audit"] = made.page({**row, **more})
    assert cli("audit", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)[0]["details"]["reason"] == ESCAPES
    assert cli("audit") == 0
    assert SHOWN in capsys.readouterr().out


def test_a_refusal_steers_nothing() -> None:
    refused = refusal(Reply(409, b""), {"detail": f"probe failed: {ESCAPES}"}, has_token=True)
    assert SHOWN in str(refused)


def test_a_path_in_the_access_log_steers_nothing() -> None:
    line = {"ts": "2026-01-02T03:04:05Z", "status": 200, "method": "GET", "path": f"/{ESCAPES}"}
    assert SHOWN in request_line(line)
