"""What is shown at a glance is in one call, and each line of it stands by itself."""

import io
import json
import sys
import time
from typing import Any

import pytest
from rich.console import Console

from gateway.cli import follow, main, overview, progress, show, terminal
from gateway.cli.progress import Sight

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def rolling(made: Any) -> Any:
    """A service amid a canary."""
    old = made.seen(
        id="ver-0", version="v1.0", weight=90, share=90.0, rate=91.4, errorPercent=0.0, p95Ms=12.0
    )
    new = made.seen(weight=10, share=10.0, rate=9.62, errorPercent=4.0, p95Ms=6.5, isActive=True)
    past = made.seen(id="ver-9", version="v0.9", status="deprecated")
    verdict = {"verdict": "hold", "gate": "requests", "statistic": 11.18, "limit": 125.0, "reason": "few"}
    return made.glance(old, new, past, deployment=made.deployment(verdict=verdict))


def test_get_is_one_call_and_a_line_for_each_version(
    api: Any, cli: Any, rolling: Any, capsys: Capture
) -> None:
    api.answers["GET overview"] = rolling
    assert cli("get") == 0
    assert [target for target, _ in api.asked] == ["GET overview"]
    head, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert tuple(head) == overview.COLUMNS
    url = "http://127.0.0.1:7201"
    assert lines == [
        ["auth", "v1.0", "90%", "healthy", "91.4", "0.0%", "12ms", url, "testing", "-"],
        ["auth", "v1.1", "10%", "healthy", "9.6", "4.0%", "6.5ms", url, "testing", "rolling:10%"],
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_url_stands_in_one_line_on_a_terminal_of_any_width(
    rolling: Any, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """Guards: half of it stood in the next line, and nobody could copy it."""
    drawn = io.StringIO()
    screen = Console(file=drawn, width=width, highlight=False)
    monkeypatch.setattr(terminal, "console", lambda: screen)
    terminal.draw_once(terminal.overview_lines(rolling, everything=False))
    lines = drawn.getvalue().splitlines()
    assert sum(line.endswith("http://127.0.0.1:7201") for line in lines) == 2
    assert all(
        any(f" {version} " in line and percent in line for line in lines)
        for version, percent in (("v1.0", "90%"), ("v1.1", "10%"))
    )


def test_past_versions_are_shown_when_asked_for(api: Any, cli: Any, rolling: Any, capsys: Capture) -> None:
    api.answers["GET overview"] = rolling
    assert cli("get", "auth", "-a") == 0
    assert "v0.9" in capsys.readouterr().out
    assert cli("get", "auth", "-o", "json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [each["version"] for each in shown["versions"]] == ["v1.0", "v1.1", "v0.9"]
    assert shown["deployment"]["id"] == "dep-1"


def test_a_freeze_and_an_empty_gateway_are_said(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    api.answers["GET overview"] = made.glance(made.seen(), frozen=True)
    assert cli("get") == 0
    assert "frozen: launch day" in capsys.readouterr().err
    api.answers["GET overview"] = {"frozen": False, "items": []}
    assert cli("get") == 0
    assert "no services yet: gateway deploy" in capsys.readouterr().err
    assert cli("get", "auht") == 1
    assert "no service 'auht'; `gateway get` lists those there are" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"draining": True}, "draining"),
        ({"draining": True, "drained": True}, "healthy"),
        ({"circuitState": "OPEN"}, "breaker-open"),
        ({"healthStatus": "unhealthy"}, "unhealthy"),
    ],
)
def test_health_is_why_a_version_gets_nothing(made: Any, changed: dict[str, object], word: str) -> None:
    assert overview.health(made.seen(**changed)) == word


def test_addresses_are_those_clients_use() -> None:
    routes = [{"host": "*", "path": "/api"}, {"host": "shop.example", "path": "/"}]
    assert overview.live_addresses(["http://0.0.0.0:80", "http://h:1"], routes) == [
        "http://127.0.0.1:80/api",
        "http://shop.example:80/",
    ]
    assert overview.live_addresses(["https://[::]:443"], routes[:1]) == ["https://127.0.0.1:443/api"]
    assert overview.live_addresses([], routes) == ["/api", "shop.example/"]


# -- watching


def watching(monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
    """Let watching end, as if by Ctrl-C, after so many looks."""
    left = iter(range(looks - 1))

    def sleep(_: float) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(follow, "time", type("Clock", (), {"sleep": staticmethod(sleep)}))


def test_watching_prints_the_state_at_once_and_then_what_changes(
    api: Any, cli: Any, made: Any, rolling: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    busier = json.loads(json.dumps(rolling))
    busier["items"][0]["versions"][0]["rate"] = 400.0
    moved = json.loads(json.dumps(rolling))
    moved["items"][0]["versions"][1].update(share=50.0)
    api.answers["GET overview"] = [rolling, busier, moved]
    watching(monkeypatch, 3)
    assert cli("get", "-w") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == list(overview.COLUMNS)
    assert [line.split()[1:3] for line in lines[1:3]] == [["v1.0", "90%"], ["v1.1", "10%"]]
    assert lines[3].startswith("auth  rolling v1.0 → v1.1 (canary): step 1/3, 10 %")
    assert [line.split()[1:3] for line in lines[4:]] == [["v1.1", "50%"]]


def test_watching_gives_scripts_json_lines(
    api: Any, cli: Any, rolling: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers["GET overview"] = [rolling, rolling]
    watching(monkeypatch, 2)
    assert cli("get", "-w", "-o", "json") == 0
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["name"] == "auth"


# -- the block


def sight(rolling: Any) -> Sight:
    [service] = rolling["items"]
    return Sight(service, service["deployment"])


def test_the_block_says_where_it_is_and_how_both_do(rolling: Any) -> None:
    head, steps, old, new, scale, odds, why = progress.block(sight(rolling))
    assert head == "auth  v1.0 → v1.1  canary   rolling   step 1 of 3   10 % new   3m12s left"
    assert steps.strip() == "[10 %] → 50 % → 100 %"
    assert old.split() == ["v1.0", "90%", "91.4/s", "0.0%", "errors", "p95", "12ms", "healthy"]
    assert new.split() == ["v1.1", "10%", "9.6/s", "4.0%", "errors", "p95", "6.5ms", "healthy"]
    assert scale.strip().startswith("no difference ━━")
    assert scale.endswith("roll back")
    assert odds.strip() == "11.2 : 1 that it is worse, 125 : 1 rolls back"
    assert why.strip() == "hold: 3 of 20 requests seen"


@pytest.mark.parametrize(("statistic", "filled"), [(0.0, 0), (1.0, 0), (11.18, 8), (125.0, 16), (1e9, 16)])
def test_the_scale_is_logarithmic_from_no_difference_to_the_limit(statistic: float, filled: int) -> None:
    line, _ = progress.scale_lines({"verdict": {"statistic": statistic, "limit": 125.0}})
    assert line.count("━") == filled
    assert line.count("─") == 16 - filled


@pytest.mark.parametrize("statistic", [0.0, 1.0, 174.0, 513_988_109.0, 1e300])
def test_the_scale_fits_a_narrow_terminal(statistic: float) -> None:
    """It was wrapped at 80 columns, in the middle of the odds, then at 60."""
    lines = progress.scale_lines({"verdict": {"statistic": statistic, "limit": 200.0}})
    assert max(len(f"  {line}") for line in lines) <= 60


def test_there_is_no_scale_without_a_statistic() -> None:
    assert progress.scale_lines({"verdict": None}) == []
    assert progress.scale_lines({"verdict": {"statistic": None, "limit": None}}) == []


def test_the_block_says_what_a_quiet_or_paused_rollout_waits_for(made: Any) -> None:
    quiet = made.glance(made.seen(), deployment=made.deployment())
    assert any("no request to auth in 10 s" in line for line in progress.block(sight(quiet)))
    paused = made.glance(made.seen(), deployment=made.deployment(status="paused"))
    assert any("gateway resume auth, promote or rollback" in line for line in progress.block(sight(paused)))


# -- top and why


def test_top_puts_the_wanted_first(api: Any, cli: Any, rolling: Any, capsys: Capture) -> None:
    api.answers["GET overview"] = rolling
    assert cli("top") == cli("top", "--sort", "errors") == 0
    lines = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["VERSION", "v1.0", "v1.1", "VERSION", "v1.1", "v1.0"]
    assert show.top_line(rolling) == "services 1   open rollouts 1   101 requests/s   0.4 errors/s"


def test_why_is_a_story_with_numbers_and_a_next_step(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    numbers = {
        "gate": "requests",
        "percent": 10,
        "newAnswers": 10,
        "newErrors": 6,
        "oldAnswers": 92,
        "oldErrors": 0,
    }
    held = {
        "at": "2026-01-02T03:04:05Z",
        "step": 0,
        "actor": "judge",
        "verdict": "hold",
        "reason": "Too little.",
    }
    held |= {"data": numbers}
    ended = held | {"verdict": "rollback", "reason": "6 of 10 failed.", "at": "2026-01-02T03:04:09Z"}
    ended |= {"data": numbers | {"percent": 0, "statistic": 1282.0, "limit": 125.0}}
    api.answers |= {
        "GET deployment": made.page(made.deployment(status="rolled_back", trafficPercent=0)),
        "GET deployment/dep-1/decisions": made.page(ended, held, held, held),
    }
    assert cli("why", "auth") == 0
    out = capsys.readouterr().out
    assert "judge: Too little. (and 2 times more, until " in out
    assert out.count("Too little.") == 1
    assert "new 6 of 10 failed, old 0 of 92 failed, 1,282 : 1 that it is worse, 125 : 1 rolls back" in out
    assert out.splitlines()[-1].startswith("next: repair it")
    assert cli("why", "auth", "-o", "json") == 0
    assert len(json.loads(capsys.readouterr().out)["decisions"]) == 4


@pytest.mark.parametrize(
    ("status", "next_command"),
    [
        ("paused", "gateway resume auth"),
        ("rolling", "gateway rollback auth"),
        ("completed", "gateway undo auth"),
        ("failed", "gateway whatif auth"),
    ],
)
def test_every_ending_names_what_can_be_done(made: Any, status: str, next_command: str) -> None:
    assert next_command in show.next_line(made.deployment(status=status))


def test_two_hundred_services_are_read_fast(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    """What the client does for 200 services is no matter of seconds; the bound is generous."""
    [service] = made.glance(made.seen(id="ver-0", version="v1.0", weight=100, share=100.0))["items"]
    items = [service | {"name": f"service-{number}"} for number in range(200)]
    api.answers["GET overview"] = {"frozen": False, "items": items}
    began = time.monotonic()
    assert cli("get") == 0
    assert time.monotonic() - began < 2.0
    assert len(capsys.readouterr().out.splitlines()) == 201


def test_odds_beyond_anybodys_count_are_no_line_of_digits() -> None:
    """A clear case filled two lines of a terminal: 6,131,999,999,999,999,869,704,…"""
    assert overview.odds(6.1e48) == "over 1,000,000"
    assert overview.odds(1e6) == "1,000,000"
    assert overview.odds(12.34) == "12.3"


def test_a_terminal_without_arrows_gets_the_rest(
    api: Any, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards: in a Latin-1 locale `why` ended in a traceback."""
    api.answers["GET deployment"] = made.page(made.deployment())
    api.answers["GET deployment/dep-1/decisions"] = made.page()
    api.answers["GET overview"] = made.glance(made.seen())
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1", write_through=True))
    monkeypatch.setattr(sys, "argv", ["gateway", "why", "auth"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert b"v1.0 ? v1.1" in written.getvalue()
