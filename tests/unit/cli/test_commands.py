"""Commands say what happened, in words and in the exit code."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import connect, operate
from gateway.cli.client import AdminClient, ServerEvent
from gateway.cli.exits import CliError, Unreachable

Capture = pytest.CaptureFixture[str]


def test_versions_of_a_service_there_is_not_are_no_empty_table(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    api.answers |= {
        "GET deployment/versions": made.page(),
        "GET services/auht": (404, {"detail": "no service 'auht'"}),
    }
    assert cli("versions", "auht") == 1
    assert "no service 'auht'" in capsys.readouterr().err


@pytest.mark.parametrize("move", ["promote", "pause", "resume", "complete"])
def test_a_move_goes_to_the_open_rollout(api: Any, cli: Any, made: Any, move: str) -> None:
    api.answers |= {
        "GET deployment": made.page(made.deployment()),
        f"POST deployment/dep-1/{move}": made.deployment(),
    }
    assert cli(move, "auth") == 0
    assert api.asked[-1][0] == f"POST deployment/dep-1/{move}"


def test_a_move_without_an_open_rollout_says_so(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    api.answers["GET deployment"] = made.page(made.deployment(status="completed"))
    assert cli("pause", "auth") == 1
    assert capsys.readouterr().err == (
        "gateway: auth has no open rollout: the last one ended completed; `gateway why auth` says why\n"
    )
    api.answers |= {"GET deployment": made.page(), "GET services/auth": {}}
    assert cli("pause", "auth") == 1


def test_rollback_is_tried_whatever_the_rollout_says_of_itself(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    api.answers |= {
        "GET deployment": made.page(made.deployment(status="completed")),
        "POST deployment/dep-1/rollback": made.deployment(status="rolled_back", warning="v1.0 is unhealthy"),
    }
    assert cli("rollback", "auth", "--reason", "smoke") == 0
    assert api.asked[-1][1] == {"reason": "smoke"}
    assert "warning: v1.0 is unhealthy" in capsys.readouterr().err


def test_a_rollback_without_a_store_is_ordered_at_each_gateway(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    path = "POST deployment/dep-1/rollback"
    ahead = made.deployment(status="rolled_back", stored=False)
    beside = [type(api)() for _ in range(3)]
    api.beside = beside[:2]
    api.answers |= {"GET deployment": made.page(made.deployment()), path: (202, ahead | {"nodes": ["a"]})}
    beside[0].answers[path] = CliError("connection refused")
    beside[1].answers[path] = (202, ahead | {"nodes": ["c"]})
    assert cli("rollback", "auth") == 0
    said = capsys.readouterr().err
    assert "was not told: connection refused" in said
    assert "it is in force at a, c, but the store cannot take it yet" in said

    beside[2].answers[path] = made.deployment(status="rolled_back", stored=True)
    api.beside = beside[2:]
    assert cli("rollback", "auth") == 0
    assert "cannot take it" not in capsys.readouterr().err, "it is stored after all"


def test_status_fails_when_the_rollout_did(api: Any, cli: Any, made: Any) -> None:
    for status, code in (("rolling", 0), ("completed", 0), ("rolled_back", 1), ("failed", 1)):
        api.answers["GET deployment"] = made.page(made.deployment(status=status))
        assert cli("status", "auth") == code


def test_status_says_why_since_when_and_by_whom(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    ended = {"remainingMs": None, "updatedAt": "2026-01-02T03:09:05Z", "steps": [10, 50, 100]}
    told = {
        "trafficPercent": 0,
        "currentStep": 1,
        "summary": "The new version fails.",
        "warning": "v1.0 is out",
    }
    api.answers["GET deployment"] = made.page(made.deployment(status="rolled_back", **ended, **told))
    assert cli("status", "auth") == 1
    line, why, warning, since = capsys.readouterr().out.splitlines()
    assert line.startswith("rolled_back v1.0 → v1.1 (canary) in step 2/3, 2026-01-02 ")
    assert (why, warning) == ("The new version fails.", "warning: v1.0 is out")
    assert since.startswith("started 2026-01-02 ")
    assert since.endswith(" by alice")


def test_a_paused_rollout_shows_what_the_judge_says_by_now(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    verdict = {"verdict": "advance", "gate": "clear", "reason": "It does as well."}
    paused = made.deployment(status="paused", summary="paused by clock: Too little traffic.", verdict=verdict)
    api.answers["GET deployment"] = made.page(paused)
    assert cli("status", "auth") == 0
    out = capsys.readouterr().out
    assert out.count("paused by clock: Too little traffic.") == 1
    assert out.count("judged now: advance: It does as well.") == 1


def test_whoever_has_no_token_is_told_where_one_goes(api: Any, cli: Any, capsys: Capture) -> None:
    api._token = None
    api.answers["GET overview"] = (401, {"detail": "this call needs a token"})
    assert cli("get") == 4
    assert "--token or GATEWAY_TOKEN" in capsys.readouterr().err


def test_decisions_are_a_table_oldest_first(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    row = {"at": "2026-01-02T03:04:05Z", "step": 0, "actor": "judge", "data": {"percent": 10}}
    newest = row | {"verdict": "rollback", "reason": "It fails."}
    oldest = row | {"verdict": "step", "reason": "First step.", "actor": "gate"}
    api.answers |= {
        "GET deployment": made.page(made.deployment(id="dep-1"), made.deployment(id="dop-2")),
        "GET deployment/dep-1/decisions": made.page(newest, oldest),
        "GET deployment/dop-2/decisions": made.page(newest),
    }
    assert cli("decisions", "auth") == 0
    lines = [line.rstrip().split(maxsplit=7) for line in capsys.readouterr().out.splitlines()]
    assert [cells[2:] for cells in lines[1:]] == [
        ["1", "10", "%", "step", "gate", "First step."],
        ["1", "10", "%", "rollback", "judge", "It fails."],
    ]
    assert cli("decisions", "auth", "--deployment", "do") == 0
    assert api.asked[-1][0].startswith("GET deployment/dop-2/decisions")
    assert cli("decisions", "auth", "--deployment", "d") == 1
    assert "2 rollouts of auth have an id that begins with 'd'" in capsys.readouterr().err


def test_denied_is_exit_code_4(api: Any, cli: Any, capsys: Capture) -> None:
    api.answers["GET overview"] = (403, {"detail": "needs the role viewer", "next": "ask an admin"})
    assert cli("get") == 4
    assert capsys.readouterr().err == "gateway: needs the role viewer: ask an admin\n"


def test_an_unreachable_gateway_is_one_line(cli: Any, capsys: Capture) -> None:
    assert cli("get", "--admin-url", "http://127.0.0.1:1", "--token", "x") == 1
    err = capsys.readouterr().err
    assert err.startswith("gateway: connection refused at http://127.0.0.1:1: control is down; ")
    assert err.endswith("start it with: gateway serve\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["deploy"],
        ["promote"],
        ["set-weight", "a", "b", "101"],
        ["deploy", "a", "b", "--steps", "x"],
    ],
)
def test_usage_is_exit_code_2(cli: Any, arguments: list[str], capsys: Capture) -> None:
    assert cli(*arguments) == 2
    assert capsys.readouterr().err


def test_set_weight_patches_the_version(api: Any, cli: Any, made: Any) -> None:
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "PATCH deployment/versions/ver-1": made.version(weight=30),
    }
    assert cli("set-weight", "auth", "v1.1", 30) == 0
    assert api.asked[-1] == ("PATCH deployment/versions/ver-1", {"weight": 30})


def test_drain_waits_until_the_version_may_stop(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    busy = {
        "state": "draining",
        "inFlight": 2,
        "streams": 0,
        "oldestMs": 5,
        "deadline": None,
        "safeToStop": False,
    }
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "POST deployment/versions/ver-1/drain": busy,
        "GET deployment/versions/ver-1/drain": [
            busy,
            busy | {"state": "drained", "inFlight": 0, "safeToStop": True},
        ],
    }
    assert cli("drain", "auth", "v1.1", "--deadline", "30s", "--wait") == 0
    assert capsys.readouterr().out == "auth v1.1: drained, may be stopped\n"
    assert ("POST deployment/versions/ver-1/drain", {"timeout": 30_000}) in api.asked


@pytest.mark.parametrize("command", [("drain", "auth", "v1.1", "--wait"), ("rm", "auth", "v1.1", "--yes")])
def test_a_wait_goes_on_at_a_gateway_that_has_yet_to_hear_of_it(
    api: Any, cli: Any, made: Any, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    state = {"state": "drained", "inFlight": 0, "streams": 0, "safeToStop": True}
    unheard = (404, {"detail": "no such version"})
    api.answers = {
        "GET deployment/versions": made.page(made.version()),
        "POST deployment/versions/ver-1/drain": state | {"safeToStop": False},
        "DELETE deployment/versions/ver-1": None,
    }
    api.answers["GET deployment/versions/ver-1/drain"] = [Unreachable("restarting"), unheard, state]
    assert cli(*command) == 1, "it is gone: nobody else was asked"
    api.answers["GET deployment/versions/ver-1/drain"] = [Unreachable("restarting"), unheard, state]
    api.has_moved = True
    assert cli(*command) == 0


def test_drain_says_which_gateways_it_waits_for(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    held = {"state": "draining", "inFlight": 0, "streams": 0, "safeToStop": False, "waitsFor": ["b", "c"]}
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "POST deployment/versions/ver-1/drain": held,
    }
    assert cli("drain", "auth", "v1.1") == 0
    assert capsys.readouterr().out == "auth v1.1: draining, 0 running, 0 streams, waiting for b, c\n"


def test_a_new_token_is_alone_on_stdout(api: Any, cli: Any, capsys: Capture) -> None:
    api.answers["POST tokens"] = (201, {"name": "ci", "role": "deployer", "token": "gw_secret"})
    assert cli("token", "create", "ci", "--role", "deployer") == 0
    assert capsys.readouterr().out == "gw_secret\n"


def test_a_token_is_revoked_by_name_when_only_one_has_it(api: Any, cli: Any, made: Any) -> None:
    first = {"id": "t-1", "name": "ci", "revokedAt": None}
    api.answers |= {"GET tokens": made.page(first, first | {"id": "t-2"}), "DELETE tokens/t-1": (204, None)}
    assert cli("token", "revoke", "ci") == 1
    assert cli("token", "revoke", "t-1") == 0


def test_freeze_is_set_and_shown(api: Any, cli: Any, capsys: Capture) -> None:
    api.answers |= {"PUT freeze": {"frozen": True, "reason": "audit"}, "GET freeze": {"frozen": False}}
    assert cli("freeze", "on", "--reason", "audit") == 0
    assert cli("freeze") == 0
    assert capsys.readouterr().out == "frozen: audit\nnot frozen\n"


def test_upgrade_returns_when_the_new_control_is_in_charge(api: Any, cli: Any, capsys: Capture) -> None:
    old = {"epoch": 3, "release": "1", "pid": 10}
    api.answers |= {
        "GET gateway": [old, old, Unreachable("handing over"), old | {"epoch": 4, "release": "2", "pid": 11}],
        "POST gateway/upgrade": (202, old),
    }
    assert cli("upgrade") == 0
    assert capsys.readouterr().out == "release 2 is in charge, epoch 4, pid 11\n"
    api.answers["POST gateway/upgrade"] = Unreachable("it left before it answered")
    api.answers["GET gateway"] = [old, old | {"epoch": 4}, old | {"epoch": 4, "release": "2", "pid": 11}]
    assert cli("upgrade") == 0
    follower = old | {"node": "b"}
    api.answers |= {"GET gateway": [follower, follower, follower | {"pid": 11, "release": "2"}]}
    capsys.readouterr()
    assert cli("upgrade") == 0
    assert "release 2 follows on, pid 11\n" in capsys.readouterr().out
    api.answers["GET gateway"] = old
    api.answers["POST gateway/upgrade"] = (500, {"detail": "the successor did not start: no such module"})
    assert cli("upgrade") == 1
    api.answers |= {"GET gateway": old, "POST gateway/upgrade": old}
    assert cli("upgrade", "--timeout", "0") == 3


def test_whatif_says_what_would_have_been(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    replay = {
        "deploymentId": "dep-1",
        "status": "completed",
        "verdict": "abort",
        "afterMs": 65_000,
        "reason": "5 %",
    }
    api.answers["POST deployment/whatif"] = {"items": [replay]}
    assert cli("whatif", "auth", "--error-threshold", "1", "--set", "maxLatencyRatio=2") == 0
    out = capsys.readouterr().out
    for text in ("dep-1", "abort", "1m05s", "5 %"):
        assert text in out
    assert api.asked[-1][1] == {
        "serviceName": "auth",
        "strategy": "canary",
        "config": {"errorThreshold": 1.0, "maxLatencyRatio": 2},
    }


def test_healthcheck_is_the_exit_code(api: Any, cli: Any) -> None:
    api.answers |= {"GET /readyz": (503, "not ready"), "GET /livez": (200, "alive")}
    assert cli("healthcheck") == 1
    assert cli("healthcheck", "--live") == 0


def test_events_are_lines(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    event = {
        "id": 1,
        "at": "2026-01-02T03:04:05Z",
        "kind": "deployment.step",
        "service": "auth",
        "version": "v1.1",
        "actor": "judge",
        "data": {"text": "10 % of traffic", "percent": 10, "alert": False},
    }
    probed = event | {"kind": "version.healthy", "data": {"endpoint": "http://h:1", "error": None}}
    api.answers["GET events"] = made.page(event | {"node": None}, probed, event | {"node": "b"})
    assert cli("events", "auth") == 0
    step, healthy, shared = [line.split(maxsplit=6) for line in capsys.readouterr().out.splitlines()]
    assert shared[2:] == ["deployment.step", "auth", "v1.1", "judge", "b             10 % of traffic"]
    assert step[2:] == ["deployment.step", "auth", "v1.1", "judge", "10 % of traffic"]
    assert healthy[2:] == ["version.healthy", "auth", "v1.1", "judge", "endpoint=http://h:1"]
    api.answers["GET events"] = made.page(event)
    assert cli("events", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == 1


def test_following_events_goes_on_after_the_last_one_seen(
    api: Any, cli: Any, made: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = {"id": 4, "at": "2026-01-02T03:04:05Z", "kind": "a", "service": "", "actor": "x", "data": {}}
    api.answers["GET events"] = made.page(event)
    resumed: list[str | None] = []

    def events(_: str, *, last_id: str | None, **__: object) -> Any:
        resumed.append(last_id)
        if len(resumed) == 3:
            raise KeyboardInterrupt
        yield ServerEvent("7", "b", event | {"id": 7, "kind": "b"})
        raise Unreachable("being replaced")

    monkeypatch.setattr(api, "events", events)
    monkeypatch.setattr(operate, "RETRY_S", 0.0)
    assert cli("events", "-f") == 130
    assert resumed == ["4", "7", "7"]
    assert capsys.readouterr().err.count("being replaced") == 2


def test_history_and_versions_are_tables(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    api.answers |= {
        "GET deployment": made.page(made.deployment()),
        "GET deployment/versions": made.page(made.version()),
    }
    assert cli("history", "auth") == 0
    assert cli("versions") == 0
    out = capsys.readouterr().out
    assert "STRATEGY" in out
    assert "http://127.0.0.1:7201" in out


def test_check_names_the_wrong_key(cli: Any, tmp_path: Any, capsys: Capture) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[admin]\naddres = 'x'\n")
    assert cli("check", "--config", file) == 2
    assert capsys.readouterr().err == "gateway: admin.addres: unknown key\n"
    file.write_text("[admin]\naddress = '127.0.0.1:0'\n")
    assert cli("check", "--config", file) == 0


def test_the_bootstrap_token_beside_the_store_is_found(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        f"[store]\nurl = 'sqlite:///{tmp_path}/gateway.db'\n[admin]\naddress = '127.0.0.1:4999'\n"
    )
    (tmp_path / "admin.token").write_text("gw_boot\n")
    seen: list[tuple[str, str | None]] = []

    def client(url: str, token: str | None, **_: object) -> AdminClient:
        seen.append((url, token))
        return AdminClient(url, token)

    monkeypatch.setattr(connect, "AdminClient", client)
    connect.connect(None, None, str(file))
    connect.connect("http://h:1", None, str(file))
    (tmp_path / "admin.token").unlink()
    connect.connect(None, None, str(file))
    assert seen == [
        ("http://127.0.0.1:4999", "gw_boot"),
        ("http://h:1", "gw_boot"),
        ("http://127.0.0.1:4999", None),
    ]


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        (None, "127.0.0.1:4999"),
        ('{"admin": "127.0.0.1:5001"}', "127.0.0.1:5001"),
        ('{"admin": "0.0.0.0:5001"}', "127.0.0.1:5001"),
        ('{"admin": "[::]:5001"}', "127.0.0.1:5001"),
        ("[]", "127.0.0.1:4999"),
        ("{", "127.0.0.1:4999"),
    ],
)
def test_the_running_gateway_says_where_it_is(tmp_path: Any, written: str | None, asked: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f"store.url = 'sqlite:///{tmp_path}/gateway.db'\nadmin.address = '127.0.0.1:4999'\n")
    if written is not None:
        (tmp_path / "gateway.json").write_text(written)
    assert connect.connect(None, None, str(file)).url == f"http://{asked}"


def test_where_clients_connect_is_only_known_of_the_gateway_here(tmp_path: Any) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f"store.url = 'sqlite:///{tmp_path}/gateway.db'\n")
    (tmp_path / "gateway.json").write_text('{"admin": "127.0.0.1:5001", "listen": ["0.0.0.0:4200"]}')
    assert connect.connect(None, "t", str(file)).listen == ("http://0.0.0.0:4200",)
    assert connect.connect("http://127.0.0.1:5001", "t", str(file)).listen == ("http://0.0.0.0:4200",)
    assert connect.connect("http://elsewhere:5001", "t", str(file)).listen == ()


def test_options_before_the_command_hold_unless_the_command_says_otherwise(
    api: Any, cli: Any, made: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def canned(*given: object) -> Any:
        asked.append(given)
        return api

    monkeypatch.setattr(connect, "connect", canned)
    monkeypatch.setenv("GATEWAY_TOKEN", "gw_environment")
    api.answers["GET deployment/versions"] = made.page(made.version())
    assert cli("--token", "gw_root", "--admin-url", "http://127.0.0.1:2", "-o", "json", "versions") == 0
    assert json.loads(capsys.readouterr().out)
    assert cli("--token", "gw_root", "-o", "json", "versions", "--token", "gw_own", "-o", "table") == 0
    assert "VERSION" in capsys.readouterr().out
    assert cli("versions") == 0
    assert [given[:2] for given in asked] == [
        ("http://127.0.0.1:2", "gw_root"),
        (None, "gw_own"),
        (None, "gw_environment"),
    ]


def test_a_token_is_rotated_by_its_name(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    api.answers["GET tokens"] = made.page({"id": "t1", "name": "ci", "revokedAt": None})
    api.answers["POST tokens/t1/rotate"] = {"name": "ci", "role": "deployer", "token": "gw_new"}
    assert cli("token", "rotate", "ci", "--overlap", "1h") == 0
    assert api.asked[-1][1] == {"overlap": 3_600_000}
    assert capsys.readouterr().out == "gw_new\n"
    assert cli("token", "rotate", "nobody") == 1
    assert "`gateway token list`" in capsys.readouterr().err


def test_a_token_is_made_for_some_services_and_some_time(api: Any, cli: Any) -> None:
    api.answers["POST tokens"] = {"name": "ci", "role": "deployer", "token": "gw_new"}
    assert cli("token", "create", "ci", "--role", "deployer", "--services", "shop*", "--expires", "1h") == 0
    assert api.asked[-1][1] == {
        "name": "ci",
        "role": "deployer",
        "services": "shop*",
        "expiresIn": 3_600_000,
    }


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("get", "-o", "json"), 4),
        (("-o", "json", "why", "auth"), 1),
        (("get", "--no-such-option", "-ojson"), 2),
        (("nonsense", "--output=json"), 2),
        (("edit", "auth", "--output", "json"), 2),
    ],
)
def test_json_is_json_however_it_ends(
    words: tuple[str, ...], code: int, api: Any, made: Any, cli: Any, capsys: Capture
) -> None:
    """Guards: a refusal left stdout empty, which is no JSON."""
    api.answers |= {
        "GET overview": (403, {"detail": "not you", "next": "ask an admin"}),
        "GET deployment": made.page(),
        "GET services/auth": (404, {"detail": "no service 'auth'"}),
    }
    assert cli(*words) == code
    said = capsys.readouterr()
    assert json.loads(said.out)["exitCode"] == code
    assert json.loads(said.out)["error"] in said.err


def test_json_carries_the_problem_as_it_came(api: Any, cli: Any, capsys: Capture) -> None:
    problem = {"status": 409, "detail": "frozen", "next": "`gateway freeze off`", "errors": []}
    api.answers["GET overview"] = (409, problem)
    assert cli("get", "-o", "json") == 1
    assert json.loads(capsys.readouterr().out)["problem"] == problem


def test_nothing_is_found_of_what_there_is_and_a_mistyped_name_is_told(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    """Guards: `history`, `events` of a service that there is not were empty, with exit code 0."""
    api.answers |= {
        "GET deployment": made.page(),
        "GET events": {"items": []},
        "GET services/auht": (404, {"detail": "no service 'auht'"}),
        "GET services/auth": {"name": "auth"},
    }
    for command in ("history", "events"):
        assert cli(command, "auht") == 1
        assert "no service 'auht'" in capsys.readouterr().err
        assert cli(command, "auth") == 0


def test_more_events_than_one_call_gives_are_refused(cli: Any, capsys: Capture) -> None:
    """Guards: `-n 1000` gave 200, and said nothing."""
    assert cli("events", "-n", "1000") == 2
    assert "200" in capsys.readouterr().err


def test_a_rotated_bootstrap_token_says_what_file_has_the_old_one(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    """Guards: every later command was denied, and did not say whose token it had tried."""
    api.token_file = "var/admin.token"
    api.answers["GET tokens"] = made.page({"id": "t1", "name": "bootstrap", "revokedAt": None})
    api.answers["POST tokens/t1/rotate"] = {"name": "bootstrap", "role": "admin", "token": "gw_new"}
    assert cli("token", "rotate", "bootstrap") == 0
    assert "var/admin.token holds the old one" in capsys.readouterr().err
    api.answers["GET tokens"] = (401, {"detail": "the token is not known"})
    assert cli("token", "list") == 4
    assert "it is that of var/admin.token" in capsys.readouterr().err


def test_a_backup_takes_no_device_for_a_file(
    api: Any, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Guards: `gateway backup /dev/full`, by root, put a store in the device's place."""
    monkeypatch.setattr(api, "pieces", lambda _: iter([b"SQLite format 3\0", b"rest"]))
    pipe, file, link = tmp_path / "pipe", tmp_path / "file.db", tmp_path / "link.db"
    os.mkfifo(pipe)
    assert cli("backup", pipe) == 2
    assert pipe.is_fifo()
    assert "name one, such as" in capsys.readouterr().err
    link.symlink_to(file)
    assert cli("backup", link) == 0
    assert link.is_symlink()
    assert file.read_bytes().endswith(b"rest")
