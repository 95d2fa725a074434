"""Paths lead to the calls they name, and nobody below a route's role gets through the table by mistake."""

import pytest

from gateway.actions.access import ROLES, allows
from gateway.actions.problems import Problem
from gateway.admin.routes import ROUTES, Table

TABLE = Table(ROUTES)


def test_a_literal_segment_beats_a_placeholder() -> None:
    methods, params = TABLE.match("deployment/start")
    assert set(methods) == {"POST"}
    assert params == {}
    assert set(TABLE.match("deployment/versions")[0]) == {"GET", "POST"}


def test_a_placeholder_takes_one_decoded_segment() -> None:
    methods, params = TABLE.match("deployment/versions/4%2F2/drain")
    assert set(methods) == {"GET", "POST"}
    assert params == {"id": "4/2"}


@pytest.mark.parametrize(
    "path", ["", "nothing", "deployment/", "deployment/a/b/c/d", "services/", "deployment//traffic"]
)
def test_an_unknown_path_is_404(path: str) -> None:
    with pytest.raises(Problem) as caught:
        TABLE.match(path)
    assert caught.value.status == 404


def test_every_row_is_found_by_its_own_template() -> None:
    for route in ROUTES:
        path = route.path.replace("{id}", "x").replace("{name}", "x")
        assert TABLE.match(path)[0][route.method] is route


def test_the_same_call_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="two rows"):
        Table((ROUTES[0], ROUTES[0]))


def test_reads_need_no_more_than_the_secrets_demand() -> None:
    for route in ROUTES:
        if not route.is_change and route.path not in ("audit", "audit/verify", "backup", "tokens"):
            assert route.role == "viewer", route


def test_rollback_pause_undo_and_signing_in_are_never_limited() -> None:
    free = {route.action for route in ROUTES if route.is_change and route.budget is None}
    assert free == {
        "deployment.rollback",
        "deployment.pause",
        "service.undo",
        "service.pause",
        "session.begin",
        "session.end",
    }


def test_roles_are_ordered() -> None:
    for at, role in enumerate(ROLES):
        assert [allows(role, needed) for needed in ROLES] == [index <= at for index in range(4)]
