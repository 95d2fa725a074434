"""`logs` shows what clients got beside what was done, by service, version and status."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import logs
from gateway.cli.logs import Followed, Wanted, parsed

Capture = pytest.CaptureFixture[str]
ANY = Wanted(None, None, None)


def request(second: int, **changed: object) -> str:
    line = {"ts": f"2026-01-02T03:04:{second:02}Z", "method": "GET", "path": "/x", "status": 200}
    line |= {"service": "shop", "version": "v1", "duration_ms": 1.25}
    return json.dumps(line | changed) + "\n"


def event(second: int, **changed: object) -> dict[str, object]:
    found = {
        "id": second,
        "at": f"2026-01-02T03:04:{second:02}Z",
        "kind": "deployment.step",
        "service": "shop",
    }
    return found | {"version": "v1", "actor": "judge", "data": {"text": "moved"}} | changed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    failed = request(3, status=503, version="v2", flags=["no_endpoint"])
    path.write_text(request(1) + "torn {\n" + failed + request(5, service="other"))
    return path


def test_both_logs_are_told_in_order(api: Any, cli: Any, made: Any, file: Path, capsys: Capture) -> None:
    api.answers["GET events"] = made.page(event(2), event(4, service="other"))
    assert cli("logs", "shop", "--file", file) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.split()[2:] == ["200", "shop", "v1", "1.2ms", "GET", "/x"]
    assert second.split()[2:4] == ["deployment.step", "shop"]
    assert third.split()[2:] == ["503", "shop", "v2", "1.2ms", "GET", "/x", "no_endpoint"]


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        (("--status", "5xx"), [3]),
        (("--status", "200"), [1, 5]),
        (("--version", "v2"), [3]),
        (("--access", "-n", "2"), [3, 5]),
        (("--events",), [2]),
        (("-n", "0"), []),
    ],
)
def test_what_is_wanted_is_shown(
    api: Any, cli: Any, made: Any, file: Path, capsys: Capture, options: tuple[str, ...], seconds: list[int]
) -> None:
    api.answers["GET events"] = made.page(event(2))
    assert cli("logs", "--file", file, "-o", "json", *options) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [int((line.get("at") or line["ts"])[17:19]) for line in lines] == seconds
    assert {line["log"] for line in lines} <= {"access", "event"}


def test_a_status_is_checked(cli: Any, api: Any, capsys: Capture) -> None:
    assert cli("logs", "--status", "6xx") == 2
    assert "404 or 5xx" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "path", "says"), [("off", "-", "it is off"), ("json", "-", "standard output")]
)
def test_a_log_that_cannot_be_read_is_said(
    api: Any, cli: Any, made: Any, tmp_path: Path, capsys: Capture, form: str, path: str, says: str
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(f"access_log = {{ format = '{form}', path = '{path}' }}\n")
    api.answers["GET events"] = made.page()
    assert cli("--config", config, "logs") == 0
    assert says in capsys.readouterr().err
    assert cli("logs", "--access", "--config", config) == 1
    assert says in capsys.readouterr().err


def test_a_file_is_followed_over_its_rotation(file: Path) -> None:
    with Followed(file, ANY) as log:
        follow_over_a_rotation(log, file)


def follow_over_a_rotation(log: Followed, file: Path) -> None:
    assert len(log.last(10)) == 3
    with file.open("a") as more:
        more.write(request(6) + request(7)[:20])
    assert [said.at[17:19] for said in log.new()] == ["06"]
    with file.open("a") as more:
        more.write(request(7)[20:])
    assert [said.at[17:19] for said in log.new()] == ["07"]
    file.rename(file.with_suffix(".1"))
    assert list(log.new()) == [], "there is no successor yet"
    file.write_text(request(8))
    assert [said.at[17:19] for said in log.new()] == ["08"]
    file.write_text("")
    assert list(log.new()) == [], "it was cut short"
    file.write_text(request(9))
    assert [said.at[17:19] for said in log.new()] == ["09"]


def test_the_combined_format_is_read_too() -> None:
    line = parsed(b'1.2.3.4 - - [02/Jan/2026:03:04:05 +0000] "GET /a b HTTP/1.1" 404 12 "-" "-"')
    assert line == {"ts": "2026-01-02T03:04:05+00:00", "method": "GET", "path": "/a b", "status": 404}
    assert parsed(b"nonsense") is parsed(b"{torn") is parsed(b"{}") is None


def test_following_prints_both_as_they_come(
    api: Any, cli: Any, made: Any, file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(range(3))

    def listen(_: object, __: object, last_id: str | None, come: Any) -> None:
        assert last_id == "2"
        come.put(logs.Said("2026-01-02T03:04:09Z", "event", event(9)))

    def sleep(_: float) -> None:
        if next(looks, None) is None:
            raise KeyboardInterrupt
        with file.open("a") as more:
            more.write(request(8))

    api.answers["GET events"] = made.page(event(2))
    monkeypatch.setattr(logs, "_listen", listen)
    monkeypatch.setattr(logs, "time", type("Clock", (), {"sleep": staticmethod(sleep)}))
    assert cli("logs", "-f", "-n", "0", "--file", file, "-o", "json") == 130
    kinds = [json.loads(line)["log"] for line in capsys.readouterr().out.splitlines()]
    assert sorted(kinds) == ["access", "access", "access", "event"]
