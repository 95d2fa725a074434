"""What is registered can be corrected and forgotten."""

from typing import Any

import pytest

Capture = pytest.CaptureFixture[str]


def test_edit_moves_a_version_to_another_url(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "PATCH deployment/versions/ver-1": made.version(),
    }
    assert cli("edit", "auth", "v1.1", "--url", "http://h:1", "--replica", "http://h:2") == 0
    assert api.asked[-1][1] == {"url": "http://h:1", "replicas": ["http://h:2"]}
    assert cli("edit", "auth", "v1.1", "--no-replicas", "--shutdown-url", "") == 0
    assert api.asked[-1][1] == {"replicas": [], "shutdownUrl": None}
    assert "replicas, shutdownUrl changed" in capsys.readouterr().out


def test_edit_changes_policies_by_their_path(api: Any, cli: Any) -> None:
    api.answers["PATCH services/auth"] = {"name": "auth"}
    line = (
        "--set",
        "health.path=/up",
        "--set",
        "health.retries=0",
        "--set",
        "retry=false",
        "--route",
        "/api",
    )
    assert cli("edit", "auth", *line) == 0
    assert api.asked[-1][1] == {
        "health": {"path": "/up", "retries": 0},
        "retry": False,
        "routes": [{"host": "*", "path": "/api"}],
    }


@pytest.mark.parametrize(
    "line",
    [
        (),
        ("v1.1",),
        ("--url", "http://h:1"),
        ("v1.1", "--set", "a=1"),
        ("v1.1", "--url", "u", "--set", "a=1"),
    ],
)
def test_edit_needs_one_thing_to_change(cli: Any, api: Any, line: tuple[str, ...], capsys: Capture) -> None:
    assert cli("edit", "auth", *line) == 2
    assert "say what to change" in capsys.readouterr().err


def test_rm_forgets_a_version_once_it_is_drained(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    busy = {"state": "draining", "safeToStop": False, "inFlight": 1, "streams": 0}
    api.answers |= {
        "GET deployment/versions": made.page(made.version()),
        "POST deployment/versions/ver-1/drain": busy,
        "GET deployment/versions/ver-1/drain": [busy, busy | {"safeToStop": True}],
        "DELETE deployment/versions/ver-1": (204, None),
    }
    assert cli("rm", "auth", "v1.1") == 0
    assert capsys.readouterr().out == "auth v1.1 is forgotten\n"
    assert api.asked[-1][0] == "DELETE deployment/versions/ver-1"


def test_rm_keeps_what_serves(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    api.answers["GET deployment/versions"] = made.page(made.version(weight=100, isActive=True))
    assert cli("rm", "auth", "v1.1") == 1
    assert "auth v1.1 has weight 100: deploy another version first" in capsys.readouterr().err
    assert len(api.asked) == 1


def test_rm_of_what_is_not_there_names_what_is(api: Any, cli: Any, made: Any, capsys: Capture) -> None:
    api.answers["GET deployment/versions"] = made.page(made.version())
    assert cli("rm", "auth", "v9") == 1
    assert "auth has no version v9; it has v1.1" in capsys.readouterr().err


def test_rm_forgets_a_service(api: Any, cli: Any) -> None:
    api.answers |= {"GET services/auth": {}, "DELETE services/auth": (204, None)}
    assert cli("rm", "auth") == 0
