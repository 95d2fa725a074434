"""Everything that is wrong with a value is named at once, each by where it stands."""

import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gateway.actions import bodies
from gateway.actions.problems import Problem
from gateway.admin.parse import decode_query
from gateway.admin.queries import DeploymentsQuery
from gateway.admin.routes import ROUTES
from gateway.config import Config
from gateway.core.routing.service import ServiceSettings
from gateway.core.settings.faults import MOST_FAULTS, faults_of


def pointers(kind: Any, value: Any) -> list[str]:
    with pytest.raises(Problem) as refused:
        bodies.checked(kind, value)
    assert refused.value.status == 422
    assert all(error.detail for error in refused.value.errors)
    return [error.pointer for error in refused.value.errors]


def test_a_start_with_many_mistakes_names_each() -> None:
    body = {
        "serviceName": 5,
        "strategy": "canari",
        "config": {
            "steps": [10, {"percent": "x"}, {"percent": 50, "pauze": True}, 900],
            "stepInterval": -1,
            "errorThreshold": 0,
            "smokeTests": {"endpoints": [{"path": 3}, {"method": "GET", "path": "/", "extra": 1}]},
            "unknown": 1,
        },
        "minRequests": None,
    }
    assert sorted(pointers(bodies.StartDeployment, body)) == sorted(
        [
            "/serviceName",
            "/toVersion",
            "/strategy",
            "/config/unknown",
            "/config/steps/1/percent",
            "/config/steps/2/pauze",
            "/config/steps/3",
            "/config/stepInterval",
            "/config/errorThreshold",
            "/config/smokeTests/endpoints/0/path",
            "/config/smokeTests/endpoints/1/extra",
            "/minRequests",
        ]
    )


def test_nested_lists_objects_and_names_with_slashes_are_pointed_to() -> None:
    body = {
        "routes": [{"path": 1, "ho/st~": "*"}, "x"],
        "health": {"interval": "soon", "retries": -1},
        "testers": {"cookie": "c", "values": {"a/b": 7}},
    }
    assert sorted(pointers(ServiceSettings, body)) == sorted(
        [
            "/routes/0/ho~1st~0",
            "/routes/0/path",
            "/routes/1",
            "/health/interval",
            "/health/retries",
            "/testers/values",
        ]
    )


def test_a_rule_of_the_whole_is_looked_at_once_its_fields_are_right() -> None:
    assert pointers(bodies.Traffic, {"percent": 101}) == ["/percent"]
    assert pointers(bodies.Traffic, []) == [""]
    assert pointers(bodies.CreateVersion, {}) == ["/serviceName", "/version", "/url"]


def test_the_detail_says_that_there_are_more() -> None:
    with pytest.raises(Problem) as refused:
        bodies.parse(bodies.CreateToken, b'{"name": 1, "role": 2}')
    assert "and 1 more" in refused.value.detail


def test_what_fits_has_no_faults_and_a_flood_of_them_is_bounded() -> None:
    assert faults_of({"percent": 5}, bodies.Traffic) == []
    body = {f"x{n}": 1 for n in range(10_000)}
    assert len(faults_of(body, bodies.Traffic)) == MOST_FAULTS
    many = {"serviceName": "a", "toVersion": "b", "config": {"steps": ["x"] * 100_000}}
    assert len(faults_of(many, bodies.StartDeployment)) == MOST_FAULTS


def test_every_wrong_parameter_of_a_query_is_named() -> None:
    with pytest.raises(Problem) as refused:
        decode_query("limit=0&status=gone&colour=red&serviceName=auth", DeploymentsQuery)
    assert sorted(error.pointer for error in refused.value.errors) == ["?colour", "?limit", "?status"]


@pytest.mark.parametrize(
    "value", [None, 1, "x", [], [[]], {"a": {}}, {"percent": {"a": [1]}}, {"percent": []}]
)
def test_the_walk_agrees_with_the_check(value: Any) -> None:
    """Whatever the walk finds is wrong, and what it lets pass is right."""
    for kind in (bodies.Traffic, bodies.StartDeployment, bodies.CreateService, bodies.PatchVersion):
        try:
            msgspec.convert(value, kind)
            fits = True
        except msgspec.ValidationError:
            fits = False
        assert (faults_of(value, kind) == []) == fits


# -- in words


def kinds_in(kind: Any, seen: set[Any]) -> Iterator[Any]:
    """Yield every type that a value of `kind` is made of, itself included."""
    yield kind
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in seen:
        seen.add(kind)
        for field in msgspec.structs.fields(kind):
            yield from kinds_in(field.type, seen)
    for part in typing.get_args(kind):
        yield from kinds_in(part, seen)


def test_no_pattern_is_shown_to_people() -> None:
    """Guards: `/health/path: Expected `str` matching regex '^/[!-\\"$-\\[\\]-~]*$(?!\\n)'`."""
    seen: set[Any] = set()
    taken = [Config, *(each for route in ROUTES for each in (route.body, route.query))]
    patterns = [
        meta
        for kind in taken
        for each in kinds_in(kind, seen)
        for meta in typing.get_args(each)[1:]
        if isinstance(meta, msgspec.Meta) and meta.pattern is not None
    ]
    assert len(patterns) > 20
    assert [meta.pattern for meta in patterns if "is" not in (meta.extra or {})] == []


@pytest.mark.parametrize(
    ("settings", "where", "words"),
    [
        ({"health": {"path": "nope"}}, ("health", "path"), "is not a path as a request has it"),
        ({"sticky": {"by": "uid"}}, ("sticky", "by"), "is not one of client_ip"),
        ({"health": {"headers": {"a b": "x"}}}, ("health", "headers"), "a name in it is not a token of HTTP"),
        ({"routes": [{"path": "x"}]}, ("routes", "0", "path"), "is not a path: it begins with /"),
    ],
)
def test_what_is_wrong_is_said_in_words(settings: Any, where: tuple[str, ...], words: str) -> None:
    [fault] = faults_of(settings, ServiceSettings)
    assert fault.steps == where
    assert fault.reason.startswith(words)
