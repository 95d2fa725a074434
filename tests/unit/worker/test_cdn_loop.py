"""Loops are cut (RFC 8586); chains of gateways are not."""

import pytest

from gateway.worker.exchange.cdn_loop import entry, is_loop


@pytest.mark.parametrize(
    ("field", "loops"),
    [
        (b"", False),
        (b"me; s=api", True),
        (b"other, me;s=api", True),
        (b'other; x="a, me; s=api"', False),
        (b'me; s="api" , other', True),
        (b"me; v=1; s=api", True),
        (b"me; s=front", False),
        (b"you; s=api", False),
        (b"me", False),
        (b", ".join([b"me; s=front"] * 7), False),
        (b", ".join([b"me; s=front"] * 8), True),
        (b"you, " * 20 + b"you", False),
        (b'me; s=api"', True),
        (b'"', False),
    ],
)
def test_request_loops_if_it_was_here_for_this_service(field: bytes, loops: bool) -> None:
    assert is_loop(field, b"me", "api") is loops


def test_what_is_written_is_found_again() -> None:
    assert is_loop(b"x, " + entry(b"me", "a.b-c_d"), b"me", "a.b-c_d")


def test_gateway_without_an_id_cuts_nothing() -> None:
    assert not is_loop(b"; s=api", b"", "api")


@pytest.mark.parametrize("sent", [b'"', b'x; a="', b'"a", "', b'"\\', b'x; a="\\"'])
def test_quote_that_is_never_closed_hides_no_loop(sent: bytes) -> None:
    """Guards a client's quote that swallowed our own entries: round and round until the head was too long."""
    field = sent + b", " + entry(b"me", "api")
    assert is_loop(field, b"me", "api")
    assert is_loop(field + b", other, " + entry(b"me", "api"), b"me", "api")
