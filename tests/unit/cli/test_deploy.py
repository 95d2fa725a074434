"""`deploy` says the truth: what it waits for, where the version is live, why it is not."""

import json
from typing import Any

import pytest

from gateway.cli import deploy, follow, waiting
from gateway.cli.exits import ApiError, Unreachable
from gateway.cli.output import Output

Capture = pytest.CaptureFixture[str]
URL = "http://127.0.0.1:7201"


def test_deploy_registers_tests_and_starts(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    test = {"method": "GET", "path": "/", "expectedStatus": 200, "status": 200, "ok": True, "durationMs": 3}
    api.answers |= {
        "GET deployment/versions": made.page(),
        "POST deployment/versions": (201, made.version()),
        "GET overview": made.glance(made.seen()),
        "POST deployment/versions/ver-1/test": {"isHealthy": True, "responseTime": 3, "tests": [test]},
        "POST deployment/start": (201, made.deployment()),
    }
    code = cli("deploy", "auth", "v1.1", "--url", URL, "--steps", "10,50,100", "--step-interval", "5m")
    assert code == 0
    sent = dict(api.asked)
    assert sent["POST deployment/versions"] == {"serviceName": "auth", "version": "v1.1", "url": URL}
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
    assert "`gateway rollback auth` takes it back" in err


def test_immediate_is_a_strategy(api: Any, cli: Any, made: Any) -> None:
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "GET overview": made.glance(made.seen()),
        "POST deployment/start": (201, made.deployment(strategy="immediate")),
    }
    assert cli("deploy", "auth", "v1.1", "--immediate", "--no-test") == 0
    assert dict(api.asked)["POST deployment/start"]["strategy"] == "immediate"


def test_deploy_moves_nothing_when_a_test_fails(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    test = {"method": "GET", "path": "/", "expectedStatus": 200, "status": 500, "ok": False, "durationMs": 3}
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "GET overview": made.glance(made.seen()),
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


def test_an_unknown_service_names_what_makes_it(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    api.answers |= {
        "GET deployment/versions": made.page(),
        "POST deployment/versions": (404, {"detail": "no service 'auth'"}),
    }
    assert cli("deploy", "auth", "v1.1", "--url", URL) == 1
    assert capsys.readouterr().err == "gateway: no service 'auth': add --route /auth to make it\n"


# -- the url


def test_a_mistyped_url_is_replaced_while_nothing_went_there(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    changed = made.version(url="http://127.0.0.1:9999")
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "PATCH deployment/versions/ver-1": changed,
        "GET overview": made.glance(made.seen()),
        "POST deployment/start": (201, made.deployment()),
    }
    assert cli("deploy", "auth", "v1.1", "--url", "http://127.0.0.1:9999", "--no-test") == 0
    assert ("PATCH deployment/versions/ver-1", {"url": "http://127.0.0.1:9999"}) in api.asked
    assert "it is now http://127.0.0.1:9999" in capsys.readouterr().err


@pytest.mark.parametrize("past", [{"isActive": True}, {"status": "deprecated"}, {"status": "production"}])
def test_a_version_that_had_traffic_keeps_its_url(
    api: Any, cli: Any, made: Any, capsys: Capture, past: dict[str, object]
) -> None:
    api.answers["GET deployment/versions"] = made.page(made.version(**past))
    assert cli("deploy", "auth", "v1.1", "--url", "http://127.0.0.1:9999") == 1
    assert "give a new build a new version name" in capsys.readouterr().err


# -- its health


def health(error: str | None, *, url: str = URL, ok: bool = False) -> dict[str, object]:
    check = {"endpoint": f"ver-1|{url}|127.0.0.1", "isHealthy": ok, "errorMessage": error, "statusCode": None}
    return {"versions": [{"versionId": "ver-1", "checks": [check]}]}


@pytest.mark.parametrize("wait", [(), ("--wait",)])
def test_a_version_that_never_is_healthy_is_an_error_that_says_why(
    api: Any, cli: Any, made: Any, capsys: Capture, wait: tuple[str, ...]
) -> None:
    sick = made.version(weight=100, healthStatus="unhealthy")
    api.answers |= {
        "GET deployment/versions": made.page(),
        "POST deployment/versions": (201, made.version(weight=100, healthStatus="unknown")),
        "GET deployment/versions/ver-1": sick,
        "GET services/auth/health": health("connection refused"),
    }
    line = ("deploy", "auth", "v1.1", "--url", URL, "--route", "/api", "--deploy-timeout", "0", *wait)
    assert cli(*line) == 1
    out, err = capsys.readouterr()
    assert not out
    assert f"waiting up to 0s for {URL} to pass its health check" in err
    assert "not healthy yet: connection refused" in err
    assert err.splitlines()[-1].startswith(
        "gateway: auth v1.1 is not healthy after 0s: connection refused. It has no traffic"
    )


def test_an_error_of_the_url_before_is_not_told_of_the_new_one(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    api.answers |= {
        "GET deployment/versions": made.page(made.version(healthStatus="unknown")),
        "GET deployment/versions/ver-1": made.version(healthStatus="unknown"),
        "GET services/auth/health": health("refused", url="http://127.0.0.1:1"),
    }
    assert cli("deploy", "auth", "v1.1", "--deploy-timeout", "0") == 1
    assert "no check has ended yet" in capsys.readouterr().err


def test_a_host_without_an_address_is_said_to_have_none(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    unknown = {"versions": [{"versionId": "ver-1", "endpoints": [], "checks": []}]}
    api.answers |= {
        "GET deployment/versions": made.page(made.version(healthStatus="unknown")),
        "GET deployment/versions/ver-1": made.version(healthStatus="unknown"),
        "GET services/auth/health": unknown,
    }
    assert cli("deploy", "auth", "v1.1", "--deploy-timeout", "0") == 1
    assert (
        "is not healthy after 0s: the host in http://127.0.0.1:7201 has no address" in capsys.readouterr().err
    )


def test_the_first_version_is_waited_for_and_its_address_is_said(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    api.listen = ("http://0.0.0.0:4200",)
    unknown = made.version(weight=100, healthStatus="unknown")
    api.answers |= {
        "GET deployment/versions": made.page(),
        "POST deployment/versions": (201, unknown),
        "GET deployment/versions/ver-1": [unknown, made.version(weight=100)],
        "GET services/auth/health": health("connection refused"),
        "GET overview": [
            made.glance(made.seen(weight=100, share=0.0)),
            made.glance(made.seen(weight=100, share=100.0)),
        ],
    }
    assert cli("deploy", "auth", "v1.1", "--url", URL, "--route", "/api") == 0
    assert capsys.readouterr().out == "auth v1.1 takes all the traffic\nlive at http://127.0.0.1:4200/api\n"
    sent = dict(api.asked)["POST deployment/versions"]
    assert list(sent["routes"]) == [{"host": "*", "path": "/api"}]


def test_healthy_without_traffic_is_no_success(
    api: Any, cli: Any, made: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cli.deploy.LIVE_MS", 0)
    api.answers |= {
        "GET deployment/versions": made.page(made.version(weight=100)),
        "GET overview": made.glance(made.seen(weight=100, share=0.0)),
    }
    assert cli("deploy", "auth", "v1.1") == 1
    assert "is healthy and gets no traffic" in capsys.readouterr().err


def test_the_same_line_goes_on_with_the_rollout_it_started(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "GET overview": made.glance(made.seen(), deployment=made.deployment()),
    }
    assert cli("deploy", "auth", "v1.1", "--url", URL, "--route", "/api") == 0
    out, err = capsys.readouterr()
    assert out.startswith("rolling v1.0 → v1.1")
    assert "a rollout of auth v1.1 is open already" in err
    assert not any(target.startswith("POST") for target, _ in api.asked)


# -- to its end


def watched(api: Any, made: Any, *sights: Any) -> None:
    """Let `deploy --wait` see these rollouts, one a look."""
    seen = [each if isinstance(each, Exception) else made.glance(made.seen(), last=each) for each in sights]
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "POST deployment/start": (201, made.deployment()),
        "GET overview": [made.glance(made.seen()), *seen],
    }


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("rolled_back", 1), ("failed", 1)])
def test_deploy_waits_for_the_end_and_over_a_restart(
    api: Any, cli: Any, made: Any, capsys: Capture, status: str, code: int
) -> None:
    watched(
        api,
        made,
        made.deployment(),
        Unreachable("restarting"),
        made.deployment(trafficPercent=50, currentStep=1),
        made.deployment(status=status, trafficPercent=100, remainingMs=None, summary="all is well"),
    )
    assert cli("deploy", "auth", "v1.1", "--no-test", "--wait") == code
    out, err = capsys.readouterr()
    assert out.startswith(status)
    lines = [line.split(" (")[0] for line in err.splitlines() if line.startswith(("rolling", status))]
    assert lines == ["rolling: 10 % on v1.1", "rolling: 50 % on v1.1", f"{status}: 100 % on v1.1"]
    assert ("`gateway why auth` says why" in err) == (code == 1)


def test_a_pause_is_said_with_its_reason_and_waited_out(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    paused = made.deployment(status="paused", summary="paused by clock: The step is over, undecided.")
    watched(api, made, paused, paused, made.deployment(status="completed"))
    assert cli("deploy", "auth", "v1.1", "--no-test", "--wait") == 0
    assert capsys.readouterr().err.splitlines()[:3] == [
        "its page, for good: http://127.0.0.1:1/rollouts/dep-1",
        "paused: 10 % on v1.1 (paused by clock: The step is over, undecided.)",
        "waiting for somebody: gateway resume auth, promote or rollback",
    ]
    watched(api, made, paused)
    assert cli("deploy", "auth", "v1.1", "--no-test", "--wait", "--timeout", "0") == 3
    assert "timed out: the rollout of auth is still open, paused: 10 % on v1.1" in capsys.readouterr().err


def test_waiting_says_a_verdict_once_and_not_each_of_its_numbers(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    def held(requests: int) -> object:
        verdict = {"verdict": "hold", "gate": "requests"}
        return made.deployment(verdict=verdict, summary=f"hold: {requests} of 20 requests")

    passed = made.deployment(verdict={"verdict": "advance", "gate": "clear"}, summary="advance: fine")
    watched(api, made, held(3), held(9), passed, passed, made.deployment(status="completed"))
    assert cli("deploy", "auth", "v1.1", "--no-test", "--wait") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rolling")]
    assert lines == [
        "rolling: 10 % on v1.1 (hold: 3 of 20 requests)",
        "rolling: 10 % on v1.1 (advance: fine)",
    ]


def test_a_rollout_without_traffic_is_said_once(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    watched(api, made, made.deployment(), made.deployment(), made.deployment(status="completed"))
    assert cli("deploy", "auth", "v1.1", "--no-test", "--wait") == 0
    err = capsys.readouterr().err
    assert err.count("no request to auth in 10 s, so nothing can be judged: send some") == 1


def test_scripts_read_a_json_line_a_change(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    watched(api, made, made.deployment(), made.deployment(), made.deployment(status="completed"))
    assert cli("deploy", "auth", "v1.1", "--no-test", "--wait", "-o", "json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["status"] for line in lines] == ["rolling", "completed"]
    assert [each["version"] for each in lines[0]["versions"]] == ["v1.1"]


def test_leaving_says_that_the_rollout_goes_on(
    api: Any, cli: Any, made: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched(api, made, made.deployment())

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow.waiting, "wait_for", interrupted)
    assert cli("deploy", "auth", "v1.1", "--no-test", "--wait") == 130
    err = capsys.readouterr().err
    assert "the rollout goes on without you" in err
    assert "`gateway rollback auth` takes it back" in err


@pytest.mark.parametrize(("weight", "says"), [(100, "takes all the traffic once"), (0, "gets no traffic")])
def test_leaving_before_it_is_healthy_says_what_stays(
    weight: int, says: str, api: Any, cli: Any, made: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards: it ended without a word, and a first version took the traffic later all the same."""
    young = made.version(healthStatus="unknown", status="testing", weight=weight)
    api.answers["GET deployment/versions"] = made.page(young)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow.waiting, "wait_for", interrupted)
    assert cli("deploy", "auth", "v1.1") == 130
    err = capsys.readouterr().err
    assert says in err
    assert "`gateway rm auth v1.1` forgets it" in err


def test_a_version_that_this_gateway_has_yet_to_hear_of_is_waited_for(api: Any, made: Any) -> None:
    """The one that registered it is gone; the next may take a moment."""
    version = made.version(healthStatus="unknown")
    looks = [(404, {"detail": "no such version"}), version, version | {"healthStatus": "healthy"}]
    api.answers = {
        "GET deployment/versions/ver-1": list(looks),
        "GET services/auth/health": [(404, {"detail": "no service 'auth'"}), {"versions": []}],
    }
    with pytest.raises(ApiError):
        deploy.await_healthy(api, Output("text"), version, 60_000)
    api.answers["GET deployment/versions/ver-1"] = [*looks[:2], version, looks[2]]
    api.has_moved = True
    deploy.await_healthy(api, Output("text"), version, 60_000)


def test_a_first_version_that_this_gateway_has_yet_to_hear_of_is_waited_for(
    api: Any, cli: Any, made: Any, capsys: Capture
) -> None:
    api.has_moved = True
    first = made.seen(weight=100, isActive=True, status="production")
    api.answers = {
        "GET deployment/versions": made.page(made.version(weight=100)),
        "GET overview": [
            made.glance(first),
            {**made.glance(), "items": []},
            made.glance(),
            made.glance(first | {"share": 100.0}),
        ],
    }
    assert cli("deploy", "auth", "v1.1") == 0
    assert "auth v1.1 takes all the traffic" in capsys.readouterr().out


def test_waiting_looks_until_the_deadline(api: Any) -> None:
    looks = iter([None, None, "found"])
    assert waiting.wait_for(api, lambda: next(looks), 1000, "no", sleep=lambda _: None) == "found"
