"""A line of the access log says what is known of the request, whatever bytes a client has sent."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.worker import json_line, log_line
from gateway.worker.log_line import CombinedFormat, JsonFormat, Line, LineFormat
from tests.effort import effort

START: Final = datetime(1970, 1, 1, tzinfo=UTC)
BUFFER_BYTES: Final = 8_192
OFFSET: Final = 1_700_000_000.25
"""What Unix time is ahead of monotonic seconds."""
IDS: Final = st.from_regex(rb"[A-Za-z0-9._:+/=@-]{0,40}", fullmatch=True)
HOSTILE: Final = (
    b"",
    b"\\",
    b'"',
    b'\\"}\n{"status":200',
    b"\x00\x1f\x7f\x80\xff",
    "é\u2028\U0001f600".encode(),
    b"\xed\xa0\x80\xc0\xaf\xf5",  # a surrogate, an overlong form, what no UTF-8 holds
    bytes(range(256)),
    b"Mozilla/5.0 (X11; Linux x86_64)",
)
BYTES: Final = st.one_of(st.sampled_from(HOSTILE), st.binary(max_size=40))
TEXT: Final = st.one_of(
    st.sampled_from(("", "192.0.2.1", "::1", 'a"b\\c', "\ud800\udfff", "\x7f\x1b[31m")),
    st.text(st.characters(), max_size=20),  # lone surrogates too
)
AMOUNT: Final = st.one_of(st.integers(0, 2_000), st.integers(0, 10**13))
FIELDS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "ended": st.floats(0, 1e9),
    "request_id": IDS,
    "trace_id": IDS,
    "client": TEXT,
    "peer": TEXT,
    "method": BYTES,
    "host": TEXT,
    "path": BYTES,
    "proto": st.sampled_from(("HTTP/1.1", "HTTP/1.0", "")),
    "status": st.integers(100, 599),
    "service": TEXT,
    "version": TEXT,
    "endpoint": TEXT,
    "attempts": st.integers(0, 2_000),
    "duration_us": AMOUNT,
    "upstream_us": AMOUNT,
    "gateway_us": AMOUNT,
    "bytes_in": AMOUNT,
    "bytes_out": AMOUNT,
    "user_agent": BYTES,
    "deployment": TEXT,
    "flags": st.lists(st.sampled_from(("reset", "retried", "503")), max_size=2),
    "referer": BYTES,
}


@st.composite
def lines(draw: st.DrawFn) -> list[Line]:
    """A few lines that have much in common, as one format writes them."""
    first = {name: draw(kind) for name, kind in FIELDS.items()}
    made = [first]
    for _ in range(draw(st.integers(0, 3))):
        changed = draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=4))
        made.append(made[-1] | {name: draw(FIELDS[name]) for name in sorted(changed)})
    return [line_of(each) for each in made]


def line_of(values: dict[str, Any]) -> Line:
    line = Line()
    for name, value in values.items():
        setattr(line, name, value)
    return line


def written_by(format: LineFormat, line: Line) -> bytes:
    buffer = bytearray(b"before\n").ljust(BUFFER_BYTES)
    end = format.write(buffer, 7, line, OFFSET)
    assert buffer.startswith(b"before\n")
    return bytes(buffer[7:end])


def meant(line: Line) -> dict[str, Any]:
    """Return what a line says, put together the slow way."""
    at = line.ended + OFFSET
    ended = START + timedelta(seconds=int(at), microseconds=int((at - int(at)) * 1e6))
    says = {
        "ts": ended.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "request_id": line.request_id.decode(),
        "trace_id": line.trace_id.decode(),
        "client": line.client,
        "peer": line.peer,
        "method": escaped(line.method),
        "host": line.host,
        "path": escaped(line.path),
        "proto": line.proto,
        "status": line.status,
        "service": line.service,
        "version": line.version,
        "endpoint": line.endpoint,
        "attempts": line.attempts,
        "duration_ms": line.duration_us / 1000,
        "upstream_ms": line.upstream_us / 1000,
        "gateway_ms": line.gateway_us / 1000,
        "bytes_in": line.bytes_in,
        "bytes_out": line.bytes_out,
        "user_agent": escaped(line.user_agent),
    }
    if line.deployment:
        says["deployment"] = line.deployment
    if line.flags:
        says["flags"] = line.flags
    return says


def escaped(data: bytes) -> str:
    return "".join(chr(byte) if byte < 0x80 else f"\\x{byte:02x}" for byte in data)


@settings(max_examples=effort(50, 100, 5_000))
@given(lines())
@example([line_of({"ended": 10.000001}), line_of({"ended": 9.999999})])
def test_json_line_is_the_record_of_its_request(some: list[Line]) -> None:
    """Lines share what is kept from one to the next: none may have anything of another."""
    format = JsonFormat()
    for line in some:
        written = written_by(format, line)
        assert re.fullmatch(rb"\{[\x20-\x7e]*\}\n", written)
        assert json.loads(written) == json.loads(json.dumps(meant(line)))
        assert list(json.loads(written)) == list(meant(line))


@settings(max_examples=effort(50, 100, 5_000))
@given(lines())
def test_combined_line_has_nine_parts(some: list[Line]) -> None:
    format = CombinedFormat()
    for line in some:
        line.client = "192.0.2.1"
        written = written_by(format, line).decode("ascii")
        assert re.fullmatch(r'\S+ - - \[[^]]+\]( "([^"\\]|\\.)*"| (\d+|-)){5}\n', written)
        assert re.fullmatch(r"[\x20-\x7e]*\n", written)


@pytest.mark.parametrize("format", [JsonFormat(), CombinedFormat()])
def test_every_byte_of_a_client_is_written_so_that_it_can_be_told(format: LineFormat) -> None:
    for name in ("method", "path", "user_agent"):
        plain = len(
            {written_by(format, line_of({name: b"<%c>" % byte, "proto": "p"})) for byte in range(256)}
        )
        assert plain == 256


USUAL: Final = (
    *(b"2026-11-28T20:00:00", 250_000, b"r1", b"t1", "192.0.2.1", "127.0.0.1", b"GET", "example.com"),
    *(b"/a?b=c", "HTTP/1.1", 200, "auth", "v1", "http://10.0.0.1:80", 1, 1234, 1000, 234, 3, 97),
    *(b"curl/8", b"}\n"),
)
TEXTS: Final = (2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 20)
NUMBERS: Final = (10, 14, 15, 16, 17, 18, 19)
needs_native = pytest.mark.skipif(not json_line.IS_NATIVE, reason="nothing is compiled here")


def natively(place: int, value: Any) -> bytes | None:
    """Return the usual line with another value; None: it is not taken."""
    buffer = bytearray(b"before\n").ljust(BUFFER_BYTES)
    end = json_line.write(buffer, 7, *USUAL[:place], value, *USUAL[place + 1 :])
    assert buffer.startswith(b"before\n")
    assert len(buffer) == BUFFER_BYTES
    return bytes(buffer[7:end]) if end != 7 else None


@needs_native
def test_usual_line_is_written_natively() -> None:
    """Guards the fast way: the careful one says the same at ten times the price."""
    written = natively(0, USUAL[0])
    assert written is not None
    assert json.loads(written)["gateway_ms"] == 0.234


@needs_native
@pytest.mark.parametrize("place", TEXTS)
def test_native_line_takes_only_what_stands_for_itself(place: int) -> None:
    """Sixteen bytes are looked at together: an odd one is seen wherever it is."""
    is_text = isinstance(USUAL[place], str)
    cases = [(1, 0, byte) for byte in range(256)]
    cases += [
        (n, at, byte) for n in range(18) for at in range(n) for byte in b'\x00\x1f !"#[\\]~\x7f\x80\xff'
    ]
    for size, at, byte in cases:
        data = b"b" * at + bytes([byte]) + b"~" * (size - at - 1)
        written = natively(place, data.decode("latin-1") if is_text else data)
        assert (written is not None) == (0x20 <= byte <= 0x7E and byte not in b'"\\')
        assert written is None or b'"' + data + b'"' in written


@needs_native
def test_native_line_is_bounded() -> None:
    taken = [size for size in range(BUFFER_BYTES + 100) if natively(8, b"x" * size)]
    assert taken == list(range(len(taken)))
    line = natively(8, b"x" * taken[-1])
    assert line is not None
    assert json.loads(line)["path"] == "x" * taken[-1]
    assert BUFFER_BYTES - 1_100 < 7 + len(line) <= BUFFER_BYTES
    assert natively(21, b"x" * BUFFER_BYTES) is None
    for at in (BUFFER_BYTES, BUFFER_BYTES - 1, 2**63 - 1, -1, -(2**63)):
        assert json_line.write(bytearray(BUFFER_BYTES), at, *USUAL) == at
    for place in NUMBERS:
        assert natively(place, 2**63 - 1) is not None
        assert [natively(place, number) for number in (2**63, -1, -(2**63), -(2**64))] == [None] * 4


@needs_native
@pytest.mark.parametrize("odd", [b'"', b"\\", b"\x1f", b"\x7f", b"\x80"])
def test_native_line_is_seen_to_its_end(odd: bytes) -> None:
    """Quotation marks are counted in bytes, so many rounds at a time: no number of them comes out even."""
    for size in range(2_000, 2_100):
        assert natively(8, b"x" * size + odd) is None
    for quotes in (*range(1, 300), 16 * 128, 16 * 256, 7_000):
        assert natively(8, odd * quotes) is None
        assert natively(20, odd * quotes + b"~" * 17) is None


@needs_native
def test_native_line_wants_the_values_there_are() -> None:
    with pytest.raises(TypeError):
        json_line.write(bytearray(), 0, *USUAL[:-1])
    with pytest.raises(TypeError):
        json_line.write(b"", 0, *USUAL)
    with pytest.raises(OverflowError):
        json_line.write(bytearray(), 2**63, *USUAL)
    assert natively(2, None) is None
    assert natively(4, "é") is None
    assert natively(10, "200") is None


@settings(max_examples=effort(50, 100, 5_000))
@given(lines())
def test_line_written_with_care_is_the_record_too(some: list[Line]) -> None:
    format = JsonFormat()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_line, "_write", json_line.write_none)
        for line in some:
            assert json.loads(written_by(format, line)) == json.loads(json.dumps(meant(line)))
