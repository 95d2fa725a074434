"""Commands say what happened, in words and in the exit code."""

import json
from typing import Any

import pytest

from gateway import config
from gateway.cli import connect, operate
from gateway.cli.client import ServerEvent
from gateway.cli.exits import Unreachable

Capture = pytest.CaptureFixture[str]


def test_deploy_registers_tests_and_starts(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    test = {"method": "GET", "path": "/", "expectedStatus": 200, "status": 200, "ok": True, "durationMs": 3}
    api.answers |= {
        "GET deployment/versions": made.page(),
        "POST deployment/versions": (201, made.version()),
        "POST deployment/versions/ver-1/test": {"isHealthy": True, "responseTime": 3, "tests": [test]},
        "POST deployment/start": (201, made.deployment()),
    }
    code = cli(
        "deploy",
        "auth",
        "v1.1",
        "--url",
        "http://127.0.0.1:7201",
        "--steps",
        "10,50,100",
        "--step-interval",
        "5m",
    )
    assert code == 0
    sent = dict(api.asked)
    assert sent["POST deployment/versions"] == {
        "serviceName": "auth",
        "version": "v1.1",
        "url": "http://127.0.0.1:7201",
    }
    assert sent["POST deployment/start"] == {
        "serviceName": "auth",
        "toVersion": "v1.1",
        "strategy": "canary",
        "config": {"steps": [10, 50, 100], "stepInterval": 300_000},
    }
    assert api.sent_fields[-1]["idempotency-key"]
    out, err = capsys.readouterr()
    assert out == "rolling v1.0 → v1.1 (canary): step 1/3, 10 %, 3m12s left\n"
    assert "registered auth v1.1" in err


def test_deploy_moves_nothing_when_a_test_fails(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    test = {"method": "GET", "path": "/", "expectedStatus": 200, "status": 500, "ok": False, "durationMs": 3}
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "POST deployment/versions/ver-1/test": {"isHealthy": False, "responseTime": 3, "tests": [test]},
    }
    assert cli("deploy", "auth", "v1.1") == 1
    assert "nothing was moved" in capsys.readouterr().err
    assert not any(target.startswith("POST deployment/start") for target, _ in api.asked)


def test_deploy_needs_a_url_for_a_version_nobody_knows(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    api.answers["GET deployment/versions"] = made.page()
    assert cli("deploy", "auth", "v1.1") == 2
    assert capsys.readouterr().err == "gateway: auth has no version v1.1: say where it answers with --url\n"


def test_deploy_never_moves_a_name_to_another_build(api: Any, cli: Any, made: Any) -> None:
    api.answers["GET deployment/versions"] = made.page(made.version())
    assert cli("deploy", "auth", "v1.1", "--url", "http://127.0.0.1:9999") == 1


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("rolled_back", 1), ("failed", 1)])
def test_deploy_waits_for_the_end_and_over_a_restart(
    api: Any, cli: Any, made: Any, capsys: Capture, status: str, code: int
) -> None:
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "POST deployment/start": (201, made.deployment()),
        "GET deployment/dep-1": [
            made.deployment(),
            Unreachable("restarting"),
            made.deployment(trafficPercent=50, currentStep=1),
            made.deployment(status=status, trafficPercent=100, remainingMs=None, summary="all is well"),
        ],
    }
    assert cli("deploy", "auth", "v1.1", "--no-test", "--wait") == code
    out, err = capsys.readouterr()
    assert out.startswith(status)
    assert [line.split(" (")[0] for line in err.splitlines()] == [
        "rolling: 10 % on v1.1",
        "rolling: 50 % on v1.1",
        f"{status}: 100 % on v1.1",
    ]


def test_a_pause_is_said_with_its_reason_and_waited_out(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    paused = made.deployment(status="paused", summary="paused by clock: The step is over, undecided.")
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "POST deployment/start": (201, made.deployment()),
        "GET deployment/dep-1": [paused, paused, made.deployment(status="completed")],
    }
    assert cli("deploy", "auth", "v1.1", "--no-test", "--wait") == 0
    assert capsys.readouterr().err.splitlines()[:2] == [
        "paused: 10 % on v1.1 (paused by clock: The step is over, undecided.)",
        "waiting for somebody: gateway resume, promote or rollback auth",
    ]
    api.answers["GET deployment/dep-1"] = paused
    assert cli("deploy", "auth", "v1.1", "--no-test", "--wait", "--timeout", "0") == 3
    assert "the rollout of auth is still open, paused: 10 % on v1.1" in capsys.readouterr().err


def test_waiting_says_a_verdict_once_and_not_each_of_its_numbers(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    def held(requests: int) -> object:
        verdict = {"verdict": "hold", "gate": "requests"}
        return made.deployment(verdict=verdict, summary=f"hold: {requests} of 20 requests")

    passed = made.deployment(verdict={"verdict": "advance", "gate": "clear"}, summary="advance: fine")
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "POST deployment/start": (201, made.deployment()),
        "GET deployment/dep-1": [held(3), held(9), passed, passed, made.deployment(status="completed")],
    }
    assert cli("deploy", "auth", "v1.1", "--no-test", "--wait") == 0
    assert capsys.readouterr().err.splitlines()[:2] == [
        "rolling: 10 % on v1.1 (hold: 3 of 20 requests)",
        "rolling: 10 % on v1.1 (advance: fine)",
    ]


def test_waiting_too_long_is_exit_code_3(api: Any, cli: Any, made: Any) -> None:
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "POST deployment/start": (201, made.deployment()),
        "GET deployment/dep-1": made.deployment(),
    }
    assert cli("deploy", "auth", "v1.1", "--no-test", "--wait", "--timeout", "0") == 3


def test_versions_of_a_service_there_is_not_are_no_empty_table(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    api.answers |= {
        "GET deployment/versions": made.page(),
        "GET services/auht": (404, {"detail": "no service 'auht'"}),
    }
    assert cli("versions", "auht") == 1
    assert "no service 'auht'" in capsys.readouterr().err


def test_the_first_version_needs_no_rollout(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    api.answers |= {
        "GET deployment/versions": made.page(),
        "POST deployment/versions": (201, made.version(weight=100, healthStatus="unknown")),
        "GET deployment": made.page(),
        "GET deployment/versions/ver-1": [
            made.version(weight=100, healthStatus="unknown"),
            made.version(weight=100),
        ],
    }
    assert cli("deploy", "auth", "v1.0", "--url", "http://127.0.0.1:7200", "--route", "/api", "--wait") == 0
    assert "nothing to move" in capsys.readouterr().out
    sent = dict(api.asked)["POST deployment/versions"]
    assert list(sent["routes"]) == [{"host": "*", "path": "/api"}]


def test_get_shows_the_tree(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    service = {"id": "svc-1", "name": "auth", "currentVersionId": "ver-0", "paused": False}
    api.answers |= {
        "GET services": made.page(service),
        "GET deployment/versions": made.page(
            made.version(id="ver-0", version="v1.0", weight=90), made.version(weight=10)
        ),
        "GET deployment": made.page(made.deployment()),
    }
    assert cli("get") == 0
    out = capsys.readouterr().out
    for text in ("auth", "v1.0 *", "90 %", "healthy", "step 1/3", "hold: 3 of 20 requests seen"):
        assert text in out
    assert cli("get", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)[0]["deployment"]["id"] == "dep-1"


def test_get_shows_how_the_last_rollout_ended(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    ended = made.deployment(status="rolled_back", trafficPercent=0, summary="The new version fails.")
    api.answers |= {
        "GET services": made.page({"id": "svc-1", "name": "auth", "currentVersionId": "ver-0"}),
        "GET deployment/versions": made.page(made.version()),
        "GET deployment": made.page(ended),
    }
    assert cli("get") == 0
    out = capsys.readouterr().out
    assert "rolled_back v1.0 → v1.1 (canary) in step 1/3" in out
    assert "The new version fails." in out
    assert cli("get", "-o", "json") == 0
    (service,) = json.loads(capsys.readouterr().out)
    assert (service["deployment"], service["last"]["id"]) == (None, "dep-1")


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
    assert capsys.readouterr().err == "gateway: auth has no open rollout: the last one ended completed\n"
    api.answers["GET deployment"] = made.page()
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
    api.answers |= {
        "GET services/auth": {"id": "svc-1", "name": "auth", "currentVersionId": "ver-0", "paused": False},
        "GET deployment/versions": made.page(made.version()),
        "GET deployment": made.page(paused),
    }
    assert cli("status", "auth") == cli("get", "auth") == 0
    out = capsys.readouterr().out
    assert out.count("paused by clock: Too little traffic.") == 2
    assert out.count("judged now: advance: It does as well.") == 2


def test_whoever_has_no_token_is_told_where_one_goes(api: Any, cli: Any, capsys: Capture) -> None:
    api._token = None
    api.answers["GET services"] = (401, {"detail": "this call needs a token"})
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
    api.answers["GET services"] = (403, {"detail": "needs the role viewer"})
    assert cli("get") == 4
    assert capsys.readouterr().err == "gateway: needs the role viewer\n"


def test_an_unreachable_gateway_is_one_line(cli: Any, capsys: Capture) -> None:
    assert cli("get", "--admin-url", "http://127.0.0.1:1", "--token", "x") == 1
    err = capsys.readouterr().err
    assert err.startswith("gateway: cannot reach the admin API at http://127.0.0.1:1")
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
        "GET gateway": [old, old, Unreachable("handing over"), old | {"epoch": 4, "release": "2"}],
        "POST gateway/upgrade": (202, old),
    }
    assert cli("upgrade") == 0
    assert capsys.readouterr().out == "release 2 is in charge, epoch 4, pid 10\n"
    api.answers["POST gateway/upgrade"] = Unreachable("it left before it answered")
    api.answers["GET gateway"] = [old, old | {"epoch": 4, "release": "2"}]
    assert cli("upgrade") == 0
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
    api.answers["GET events"] = made.page(event, probed)
    assert cli("events", "auth") == 0
    step, healthy = [line.split(maxsplit=6) for line in capsys.readouterr().out.splitlines()]
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
    monkeypatch.setattr(connect, "AdminClient", lambda url, token: seen.append((url, token)))
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
    settings = config.check(
        {"store": {"url": f"sqlite:///{tmp_path}/gateway.db"}, "admin": {"address": "127.0.0.1:4999"}}
    )
    if written is not None:
        (tmp_path / "gateway.json").write_text(written)
    assert connect.admin_address(settings) == asked


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
