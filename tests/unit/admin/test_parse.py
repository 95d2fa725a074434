"""Bad bodies and queries are refused with the place and the reason."""

from typing import Annotated

import msgspec
import pytest

from gateway.actions.problems import Problem
from gateway.admin.parse import NoBody, decode_body, decode_query
from gateway.core.settings.base import Settings


class Inner(Settings):
    error_threshold: float = 5
    steps: tuple[int, ...] = ()


class Outer(Settings):
    service_name: str
    weight: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    config: Inner = Inner()


class Query(Settings):
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50
    service_name: str | None = None


def refused(body: bytes, content_type: str | None = "application/json") -> Problem:
    fields = {} if content_type is None else {"content-type": content_type}
    with pytest.raises(Problem) as caught:
        decode_body(fields, body, Outer)
    return caught.value


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"{}", "/serviceName"),
        (b'{"serviceName": 1}', "/serviceName"),
        (b'{"serviceName": "a", "weight": 101}', "/weight"),
        (b'{"serviceName": "a", "wieght": 1}', "/wieght"),
        (b'{"serviceName": "a", "config": {"steps": [10, "x"]}}', "/config/steps/1"),
        (b'{"serviceName": "a", "config": {"stepz": []}}', "/config/stepz"),
    ],
)
def test_a_wrong_field_is_422_and_named_by_pointer(body: bytes, pointer: str) -> None:
    problem = refused(body)
    assert problem.status == 422
    assert [error.pointer for error in problem.errors] == [pointer]
    assert problem.errors[0].detail


@pytest.mark.parametrize(
    "body", [b"{", b"nonsense", b'{"a": 1} x', b'{"serviceName": "\xff"}', b"[" * 100_000]
)
def test_what_is_not_json_is_400(body: bytes) -> None:
    assert refused(body).status == 400


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "application/xml"])
def test_another_media_type_is_415(media: str) -> None:
    assert refused(b'{"serviceName": "a"}', media).status == 415


@pytest.mark.parametrize(
    "media", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/merge-patch+json"]
)
def test_json_by_any_usual_name_is_taken(media: str) -> None:
    assert decode_body({"content-type": media}, b'{"serviceName": "a"}', Outer).service_name == "a"


def test_json_without_a_media_type_is_taken() -> None:
    assert decode_body({}, b'{"serviceName": "a"}', Outer).service_name == "a"


def test_no_body_is_an_empty_object() -> None:
    assert decode_body({}, b"", NoBody) == NoBody()
    assert refused(b"", None).status == 422


def test_a_query_is_checked_like_a_body() -> None:
    assert decode_query("limit=20&serviceName=a%20b", Query) == Query(limit=20, service_name="a b")
    for query, parameter in (("limit=0", "?limit"), ("limit=x", "?limit"), ("nonsense=1", "?nonsense")):
        with pytest.raises(Problem) as caught:
            decode_query(query, Query)
        assert (caught.value.status, caught.value.errors[0].pointer) == (422, parameter)


def test_a_parameter_given_twice_is_refused_by_name() -> None:
    with pytest.raises(Problem) as caught:
        decode_query("limit=1&serviceName=a&limit=1&x=1&x=2", Query)
    assert caught.value.status == 422
    assert [error.pointer for error in caught.value.errors] == ["?limit", "?x"]


def test_a_query_that_cannot_be_read_is_400() -> None:
    for query in ("limit=%ff", "&".join("a=1" for _ in range(60))):
        with pytest.raises(Problem) as caught:
            decode_query(query, Query)
        assert caught.value.status == 400
