"""A file is compared with what there is, and only what differs is done; weight is never moved."""

import json
import tomllib
from typing import Any

import pytest

from gateway.cli import apply, changes, toml, wanted
from gateway.cli.changes import Present
from gateway.cli.exits import CliError
from gateway.config import FileService
from gateway.errors import ConfigError

Capture = pytest.CaptureFixture[str]
SHOP = """
[[service]]
name = "shop"
routes = [{ path = "/shop" }]
[[service.version]]
version = "v1"
url = "http://127.0.0.1:7200"
weight = 100
"""


def said(text: str) -> wanted.Wanted:
    return wanted.checked(tomllib.loads(text))


def service(name: str = "shop", *, source: str = "api", **settings: object) -> dict[str, Any]:
    """Return a service as the API shows it."""
    shown = changes.settings_of(FileService(name=name)) | {
        "routes": [{"host": "*", "path": f"/{name}", "stripPrefix": False, "methods": []}]
    }
    return {"name": name, "source": source, "settings": shown | settings}


def version(name: str = "v1", *, of: str = "shop", **changed: object) -> dict[str, Any]:
    """Return a version as the API shows it."""
    return {
        "id": f"id-{name}",
        "serviceName": of,
        "version": name,
        "url": "http://127.0.0.1:7200",
        "replicas": [],
        "weight": 0,
        "status": "testing",
        "shutdownUrl": None,
        **changed,
    }


def present(*services: dict[str, Any], versions: Any = (), tokens: Any = ()) -> Present:
    return Present(list(services), list(versions), list(tokens), you="me")


# -- reading


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("[[service]]\nname = 'x'\nhelth = 1", "service[0].helth: unknown key"),
        ("workers = 2", "workers: unknown key"),
        ("[[token]]\nname = 'ci'\nrole = 'root'", "token[0].role: "),
        ("[[token]]\nname = 'ci'\nrole = 'admin'\nsecret = 'x'", "token[0].secret: unknown key"),
        ("token = 3", "token: is not a list"),
    ],
)
def test_a_wrong_key_is_named_by_its_path(text: str, path: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        said(text)
    assert str(wrong.value).startswith(path)


def test_the_same_may_be_said_in_json(tmp_path: Any) -> None:
    tree = {"service": [{"name": "shop", "routes": [{"path": "/shop"}], "slow_start": 5}]}
    file = tmp_path / "shop.json"
    file.write_text(json.dumps(tree))
    assert wanted.read(str(file)).services[0].slow_start == 5


@pytest.mark.parametrize("text", ["{", "[[", "\x00"])
def test_what_is_neither_is_a_usage_error(tmp_path: Any, text: str) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(text)
    with pytest.raises(CliError) as wrong:
        wanted.read(str(file))
    assert wrong.value.code == 2
    with pytest.raises(CliError) as missing:
        wanted.read(str(tmp_path / "nothing"))
    assert missing.value.code == 2


# -- planning


def test_what_is_as_it_should_be_is_left_alone() -> None:
    plan = changes.plan(said(SHOP), present(service(), versions=[version(weight=30)]))
    assert (plan.changes, plan.deletions, plan.notes) == ([], [], []), "weights are not the file's to move"


def test_a_new_service_comes_with_its_versions() -> None:
    made = changes.plan(said(SHOP), present()).changes
    assert [(each.action, each.kind, each.name) for each in made] == [
        ("create", "service", "shop"),
        ("create", "version", "shop v1"),
    ]
    assert made[0].body["routes"][0]["path"] == "/shop"
    assert made[1].body["weight"] == 100


def test_the_version_that_is_to_have_the_weight_is_registered_first() -> None:
    more = (
        SHOP.replace("weight = 100", "")
        + "[[service.version]]\nversion = 'v2'\nurl = 'http://h:1'\nweight = 100"
    )
    made = changes.plan(said(more), present()).changes
    assert [(each.name, each.body.get("weight")) for each in made[1:]] == [("shop v2", 100), ("shop v1", 0)]


def test_a_new_version_of_a_live_service_gets_no_weight_and_the_next_command_is_named() -> None:
    plan = changes.plan(said(SHOP), present(service(), versions=[version("v0", weight=100)]))
    [made] = plan.changes
    assert made.body["weight"] == 0
    assert made.next == "gateway deploy shop v1"


def test_only_what_differs_is_patched() -> None:
    text = SHOP.replace(
        "[[service.version]]", "health = { interval = 2000 }\nretry = false\n[[service.version]]"
    )
    [changed] = changes.plan(said(text), present(service(), versions=[version(weight=100)])).changes
    assert changed.body == {"health": {"interval": 2000}, "retry": False}
    assert changed.lines[0] == "health.interval: 10000 -> 2000"


def test_a_setting_left_out_goes_back_to_its_default() -> None:
    there = service(sticky={"by": "client_ip", "issueCookie": False}, slowStart=5)
    [changed] = changes.plan(said(SHOP), present(there, versions=[version(weight=100)])).changes
    assert changed.body == {"sticky": None, "slowStart": 10_000}


def test_a_live_version_is_never_moved_to_another_url() -> None:
    there = present(service(), versions=[version(weight=100, url="http://127.0.0.1:7999")])
    plan = changes.plan(said(SHOP), there)
    assert plan.changes == []
    assert "`gateway edit shop v1 --url http://127.0.0.1:7200` moves it" in plan.notes[0]
    idle = present(service(), versions=[version(url="http://127.0.0.1:7999")])
    [changed] = changes.plan(said(SHOP), idle).changes
    assert (changed.id, changed.body) == ("id-v1", {"url": "http://127.0.0.1:7200"})


def test_secrets_are_neither_compared_nor_shown_nor_lost() -> None:
    hook = {
        "url": "http://h/***",
        "on": [],
        "secret": "***",
        "format": "json",
        "timeout": 5000,
        "onTimeout": "veto",
    }
    there = present(service(webhooks=[hook]), versions=[version(weight=100)])
    line = "webhooks = [{ url = 'http://h/key', secret = 'abc' }]\n[[service.version]]"
    assert changes.plan(said(SHOP.replace("[[service.version]]", line)), there).changes == []
    [made] = changes.plan(said(SHOP.replace("[[service.version]]", line)), present(service())).changes[:1]
    assert made.body["webhooks"][0]["secret"] == "abc"
    assert "abc" not in "".join(made.lines)
    assert "key" not in "".join(made.lines)


def test_deletions_spare_what_serves_what_the_gateways_file_declares_and_who_asks() -> None:
    there = present(
        service(),
        service("own", source="file"),
        service("old"),
        versions=[version("v0"), version(weight=100), version("v9", weight=5)],
        tokens=[
            {"id": str(index), "name": name, "role": "admin", "revokedAt": revoked}
            for index, (name, revoked) in enumerate(
                [("me", None), ("bootstrap", None), ("ci", None), ("x", "then")]
            )
        ],
    )
    plan = changes.plan(said(SHOP + "[[token]]\nname = 'other'\nrole = 'viewer'"), there)
    assert [(each.kind, each.name) for each in plan.deletions] == [
        ("version", "shop v0"),
        ("service", "old"),
        ("token", "ci"),
    ]
    assert [each.kind for each in plan.changes] == ["token"]
    assert [each.kind for each in changes.plan(said(SHOP), there).deletions] == ["version", "service"]


def test_what_the_gateways_own_file_declares_is_changed_there() -> None:
    there = present(service(source="file", slowStart=5), versions=[version(weight=100)])
    plan = changes.plan(said(SHOP), there)
    assert plan.changes == []
    assert "declares it" in plan.notes[0]


# -- the commands


@pytest.fixture
def file(tmp_path: Any) -> str:
    path = tmp_path / "shop.toml"
    path.write_text(SHOP)
    return str(path)


def test_plan_says_by_its_exit_code_whether_there_is_something_to_do(
    api: Any, cli: Any, made: Any, file: str, capsys: Capture
) -> None:
    api.answers |= {"GET services": made.page(), "GET deployment/versions": made.page()}
    assert cli("plan", "-f", file) == 3
    assert "+ service shop" in capsys.readouterr().out
    assert cli("apply", "-f", file, "--dry-run") == 3
    api.answers |= {
        "GET services": made.page(service(), service("old")),
        "GET deployment/versions": made.page(version(weight=100)),
    }
    capsys.readouterr()
    assert cli("plan", "-f", file) == cli("apply", "-f", file, "--dry-run") == cli("apply", "-f", file) == 0
    out = capsys.readouterr().out
    assert out.count("nothing to change") == 3
    assert "  - service old" in out
    assert cli("plan", "-f", file, "--prune") == 3
    assert not any(target.startswith(("POST", "PATCH", "DELETE")) for target, _ in api.asked)


def test_apply_does_what_plan_said(api: Any, cli: Any, made: Any, file: str, capsys: Capture) -> None:
    api.answers |= {
        "GET services": made.page(service(slowStart=5), service("old")),
        "GET deployment/versions": made.page(version("v0", weight=100)),
        "PATCH services/shop": {},
        "POST deployment/versions": (201, {}),
        "DELETE services/old": (204, None),
    }
    assert cli("apply", "-f", file, "--prune") == 0
    assert [each for each in api.asked if not each[0].startswith("GET")] == [
        ("PATCH services/shop", {"slowStart": 10_000}),
        (
            "POST deployment/versions",
            {"serviceName": "shop", "version": "v1", "url": "http://127.0.0.1:7200", "weight": 0},
        ),
        ("DELETE services/old", None),
    ]
    assert capsys.readouterr().out.splitlines()[-2:] == ["3 changes applied", "next: gateway deploy shop v1"]


def test_apply_that_is_refused_says_how_far_it_came(
    api: Any, cli: Any, made: Any, file: str, capsys: Capture
) -> None:
    api.answers |= {
        "GET services": made.page(),
        "GET deployment/versions": made.page(),
        "POST services": (201, {}),
        "POST deployment/versions": (422, {"detail": "/url: is the gateway itself"}),
    }
    assert cli("apply", "-f", file) == 1
    err = capsys.readouterr().err
    assert "+ version shop v1: /url: is the gateway itself; 1 of 2 changes were applied" in err


def test_apply_asks_on_a_terminal_and_nowhere_else(
    api: Any, cli: Any, made: Any, file: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers |= {"GET services": made.page(), "GET deployment/versions": made.page()}
    monkeypatch.setattr(apply, "is_terminal", lambda: True)
    monkeypatch.setattr(apply.click, "confirm", lambda *_, **__: False)
    assert cli("apply", "-f", file) == 1
    assert "nothing was changed" in capsys.readouterr().err


def test_a_made_token_is_shown_once(api: Any, cli: Any, made: Any, tmp_path: Any, capsys: Capture) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text("[[token]]\nname = 'ci'\nrole = 'deployer'\n")
    api.answers |= {
        "GET services": made.page(),
        "GET deployment/versions": made.page(),
        "GET tokens": made.page(),
        "GET gateway": {"you": {"name": "me"}},
        "POST tokens": (201, {"token": "gw_secret"}),
    }
    assert cli("apply", "-f", path) == 0
    assert "token ci: gw_secret" in capsys.readouterr().out


# -- export


def test_what_is_exported_is_what_there_is(
    api: Any, cli: Any, made: Any, capsys: Capture, tmp_path: Any
) -> None:
    odd = {"kind": "http", "path": '/a"b', "interval": 2000, "timeout": 5000, "retries": 1}
    odd |= {"healthyThreshold": 2, "unhealthyThreshold": 3, "expectedStatus": "200-299", "expectedBody": None}
    odd |= {"headers": {}, "host": None}
    there = [service(health=odd, retry=False, slowStart=5), service("basket")]
    versions = [version(weight=100), version("v0", status="deprecated")]
    api.answers |= {"GET services": made.page(*there), "GET deployment/versions": made.page(*versions)}
    for form, name in (("table", "all.toml"), ("json", "all.json")):
        assert cli("export", "-o", form) == 0
        text = capsys.readouterr().out
        path = tmp_path / name
        path.write_text(text)
        plan = changes.plan(wanted.read(str(path)), Present(there, versions[:1], []))
        assert (plan.changes, plan.deletions, plan.notes) == ([], [], [])


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        'quo"te',
        "back\\slash",
        "tab\t",
        "del\x7f",
        "ünïcode ✓",
        1,
        2.5,
        True,
        False,
        [],
        {"a b": [1]},
    ],
)
def test_toml_reads_back_as_it_was_written(value: object) -> None:
    assert tomllib.loads(toml.table("[t]", {"key": value, "none": None})) == {"t": {"key": value}}
