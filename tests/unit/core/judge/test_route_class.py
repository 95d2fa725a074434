"""Route classes: few, whatever clients ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.judge.route_class import route_class
from gateway.core.judge.window import Error, error_of


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "GET /"),
        ("/pay", "GET /pay"),
        ("/pay?amount=3", "GET /pay"),
        ("/api/v2/users/17/orders", "GET /api/v2/users"),
        ("/users/17/orders", "GET /users/:id/orders"),
        ("/users/5e3b1c9a-77aa-4d2e-9f00-1234567890ab", "GET /users/:id"),
        ("/files/deadbeefcafe", "GET /files/:id"),
        ("/a|b/c%20d", "GET /:id/:id"),
        ("/" + "x" * 100, "GET /:id"),
    ],
)
def test_ids_are_folded(path: str, expected: str) -> None:
    assert route_class("GET", path) == expected


@given(st.text(max_size=80), st.sampled_from(["500", "abandoned", "outcome:pay"]), st.booleans())
def test_a_class_survives_as_part_of_an_errors_key(path: str, kind: str, is_keyed: bool) -> None:
    error = Error(kind, route_class("GET", path), is_keyed)
    assert error_of(error.key) == error
