"""Smoke tests: which answers pass."""

import pytest
from msgspec import UNSET

from gateway.core.settings.smoke import SmokeEndpoint, complaint


@pytest.mark.parametrize(
    ("test", "status", "body", "says"),
    [
        (SmokeEndpoint(path="/"), 200, b"", None),
        (SmokeEndpoint(path="/"), 204, b"", "answered 204, expected 200"),
        (SmokeEndpoint(path="/", body_contains="ok"), 200, b"all ok", None),
        (SmokeEndpoint(path="/", body_contains="ok"), 200, b"no", "does not contain what it should"),
        (SmokeEndpoint(path="/", json_path="a.0.b"), 200, b'{"a":[{"b":1}]}', None),
        (SmokeEndpoint(path="/", json_path="a.1"), 200, b'{"a":[1]}', "has no a.1"),
        (SmokeEndpoint(path="/", json_path="a"), 200, b"{", "is not JSON"),
        (SmokeEndpoint(path="/", json_path="a", json_value=1), 200, b'{"a":1}', None),
        (SmokeEndpoint(path="/", json_path="a", json_value=2), 200, b'{"a":1}', "a is not what it should be"),
        (SmokeEndpoint(path="/", json_path="a", json_value=None), 200, b'{"a":null}', None),
    ],
)
def test_answer_passes_or_says_why_not(
    test: SmokeEndpoint, status: int, body: bytes, says: str | None
) -> None:
    found = complaint(test, status, body)
    assert found is None if says is None else found is not None and says in found


def test_body_of_a_test_is_absent_unless_given() -> None:
    assert SmokeEndpoint(path="/").body is UNSET
