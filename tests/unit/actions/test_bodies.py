"""Bodies: what is wrong with one is said with a pointer to the place."""

from typing import Any

import pytest

from gateway.actions.bodies import CreateService, CreateToken, CreateVersion, Promote, StartDeployment, parse
from gateway.actions.problems import Problem, conflict, invalid, not_found
from gateway.core.rollout.plan import RolloutSettings


@pytest.mark.parametrize(
    ("kind", "body", "pointer"),
    [
        (CreateVersion, b'{"serviceName":"a","version":"v1","url":"u","weight":101}', "/weight"),
        (CreateVersion, b'{"serviceName":"a","version":"v1"}', "/url"),
        (CreateVersion, b'{"serviceName":"a b","version":"v1","url":"u"}', "/serviceName"),
        (
            CreateVersion,
            b'{"serviceName":"a","version":"v1","url":"u","routes":[{"path":"x"}]}',
            "/routes/0/path",
        ),
        (CreateService, b'{"name":"a","health":{"intervall":1}}', "/health/intervall"),
        (
            StartDeployment,
            b'{"serviceName":"a","toVersion":"v","config":{"steps":[0,100]}}',
            "/config/steps/0",
        ),
        (StartDeployment, b'{"serviceName":"a","toVersion":"v","stepz":1}', "/stepz"),
        (Promote, b'{"fulll":true}', "/fulll"),
        (CreateService, b'{"name":"a","health":{"headers":{"x":1}}}', "/health/headers"),
        (Promote, b'{"a/b~c":1}', "/a~1b~0c"),
        (CreateToken, b'{"name":"a\\u001b[2J","role":"viewer"}', "/name"),
        (CreateToken, b'{"name":"a\\r\\nb","role":"viewer"}', "/name"),
        (CreateToken, b'{"name":"a\\n","role":"viewer"}', "/name"),
        (Promote, b"[]", ""),
        (dict[str, Any], b"false", ""),
        (dict[str, Any], b"1", ""),
        (Promote, b"null", ""),
        (Promote, b'"x"', ""),
    ],
)
def test_a_bad_field_is_pointed_to(kind: type[Any], body: bytes, pointer: str) -> None:
    with pytest.raises(Problem) as refused:
        parse(kind, body)
    assert refused.value.status == 422
    assert [error.pointer for error in refused.value.errors] == [pointer]


@pytest.mark.parametrize(
    ("names", "pointer", "words"),
    [
        (b'"serviceName":"shop","version":"v 2"', "/version", "is not a version's name: letters, digits"),
        (b'"serviceName":"a/b","version":"v2"', "/serviceName", "is not a service's name: letters, digits"),
    ],
)
def test_a_wrong_name_is_told_in_words_and_not_as_a_pattern(names: bytes, pointer: str, words: str) -> None:
    with pytest.raises(Problem) as refused:
        parse(CreateVersion, b'{"url":"http://127.0.0.1:1",' + names + b"}")
    (fault,) = refused.value.errors
    assert fault.pointer == pointer and fault.detail.startswith(words)


def test_json_nested_deeper_than_anything_we_take_is_400() -> None:
    """Guards against a merge patch so deep that merging it was answered with 500."""
    deep, usual = b'{"a":' * 500 + b"1" + b"}" * 500, b'{"a":' * 20 + b"[[1]]" + b"}" * 20
    with pytest.raises(Problem) as refused:
        parse(dict[str, Any], deep)
    assert refused.value.status == 400
    with pytest.raises(Problem):
        parse(dict[str, Any], b'{"a":[{}],"b":' + b"[" * 100 + b"]" * 100 + b"}")
    assert parse(dict[str, Any], usual)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"nonsense",
        b'{"full": tru}',
        b"\xef\xbb\xbf{}",
        b'{"full": NaN}',
        b'{"full": -Infinity}',
        b'{"full": 1e999}',
        b'{"reason": "\\ud83d"}',
        b'{"full": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_not_json_is_400(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        parse(Promote, body)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "body",
    [b'{"full":true,"full":false}', b'{"full":true,"f\\u0075ll":true}', b'{"a":[{"b":1,"c":2,"b":1}]}'],
)
def test_what_is_named_twice_is_400(body: bytes) -> None:
    """Whoever checked the body on its way may have gone by the first, and we by the last."""
    with pytest.raises(Problem, match="twice") as refused:
        parse(Promote, body)
    assert refused.value.status == 400


def test_a_character_may_be_spelled_by_two_escapes() -> None:
    assert parse(Promote, b'{"reason": "\\ud83d\\ude00"}').reason == "\U0001f600"


@pytest.mark.parametrize("body", [b"", b"  ", b"{}"])
def test_no_body_is_an_empty_one(body: bytes) -> None:
    assert parse(Promote, body) == Promote()


def test_a_problem_says_its_status_and_what_to_do() -> None:
    assert (not_found("service", "x").status, conflict("no", "wait").title) == (404, "Conflict")
    problem = invalid("/url", "is bad")
    assert (str(problem), problem.detail) == ("/url: is bad", "/url: is bad")
    assert Problem(429, "", "slow down", retry_after_s=3).title == "Too Many Requests"


def test_config_that_is_null_is_a_config_that_is_absent() -> None:
    body = parse(StartDeployment, b'{"serviceName":"a","toVersion":"v2","fromVersion":null,"config":null}')
    assert body.rollout() == RolloutSettings()
