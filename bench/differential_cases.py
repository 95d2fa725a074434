"""Requests that servers read differently, or that an attacker wishes they did: RFC 9112, RFC 9110.

`^` stands for a word that names the case. A sound reading sends the upstream `/^-main` and then `/^-end`, or
less. `/^-in` is only ever written inside a body: whoever asks the upstream for it took a body for a request.
"""

from typing import Final, NamedTuple

HOST: Final = b"Host: h\r\n"
INNER: Final = b"GET /^-in HTTP/1.1\r\nHost: h\r\n\r\n"
END: Final = b"GET /^-end HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
"""Sent behind every case: whether it is answered tells whether the server went on."""


class Case(NamedTuple):
    """One request, and why we treat it in another way than a peer does, if so."""

    name: str
    data: bytes
    why: str = ""
    asks: tuple[str, ...] = ("main", "end")
    """What a sound reading asks the upstream for, or the beginning of it."""


def get(fields: bytes = HOST, line: bytes = b"GET /^-main HTTP/1.1") -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


def post(fields: bytes, body: bytes = b"abc", line: bytes = b"POST /^-main HTTP/1.1") -> bytes:
    return line + b"\r\n" + HOST + fields + b"\r\n" + body


def length(value: bytes, body: bytes = b"abc") -> bytes:
    return post(b"Content-Length:" + value + b"\r\n", body)


def coding(value: bytes, body: bytes = b"0\r\n\r\n") -> bytes:
    return post(b"Transfer-Encoding:" + value + b"\r\n", body)


def chunks(body: bytes) -> bytes:
    return coding(b" chunked", body)


STRICT: Final = "a message that two readers may frame differently is refused"
ONE_FIELD: Final = "only one field with one plain number is taken"
PLAIN: Final = "refused rather than repaired"
ANY_TOKEN: Final = "any token is a method (RFC 9110 §9.1)"

LENGTHS: Final = [
    Case("length sound", length(b" 3")),
    Case("length without blank", length(b"3")),
    Case("length with a tab", length(b"\t3"), "blanks around a value are no part of it (RFC 9110 §5.5)"),
    Case(
        "length with trailing blanks",
        length(b" 3 \t"),
        "blanks around a value are no part of it (RFC 9110 §5.5)",
    ),
    Case("length 0 with a request behind", length(b" 0", b"")),
    Case("length of a hidden request", length(b" 35", INNER)),
    Case("length with leading zeros", length(b" 0003")),
    Case("length twice, equal", post(b"Content-Length: 3\r\n" * 2), ONE_FIELD),
    Case("length twice, different", post(b"Content-Length: 3\r\nContent-Length: 0\r\n")),
    Case("length listed, equal", length(b" 3, 3"), ONE_FIELD),
    Case("length listed, different", length(b" 3, 0")),
    Case("length with a plus", length(b" +3")),
    Case("length with a minus", length(b" -3")),
    Case("length in hexadecimal", length(b" 0x3")),
    Case("length as a fraction", length(b" 3.0")),
    Case("length with an exponent", length(b" 3e0")),
    Case("length with a space inside", length(b" 0 3")),
    Case("length with a semicolon", length(b" 3;")),
    Case("length quoted", length(b' "3"')),
    Case("length empty", length(b"", b"")),
    Case("length of only blanks", length(b"  ", b"")),
    Case("length of 2^64 + 3", length(b" 18446744073709551619")),
    Case("length of 2^63", length(b" 9223372036854775808")),
    Case("length behind a vertical tab", length(b" \x0b3")),
    Case("length with NUL", length(b" 3\0")),
    Case("length with a space before the colon", post(b"Content-Length : 3\r\n")),
    Case("length with an underscore", post(b"Content_Length: 3\r\n", b"")),
    Case("length folded", post(b"Content-Length:\r\n 3\r\n"), PLAIN),
    Case("length in a bare-LF line", post(b"X: y\nContent-Length: 3\r\n"), PLAIN),
    Case("length behind a bare CR", post(b"X: y\rContent-Length: 3\r\n", b"")),
    Case("length in odd case", post(b"cOnTeNt-LeNgTh: 3\r\n")),
    Case("length with GET", post(b"Content-Length: 35\r\n", INNER, b"GET /^-main HTTP/1.1")),
    Case("length with HEAD", post(b"Content-Length: 35\r\n", INNER, b"HEAD /^-main HTTP/1.1")),
    Case("length with DELETE", post(b"Content-Length: 35\r\n", INNER, b"DELETE /^-main HTTP/1.1")),
    Case("length with OPTIONS", post(b"Content-Length: 35\r\n", INNER, b"OPTIONS /^-main HTTP/1.1")),
    Case("length on HTTP/1.0", post(b"Content-Length: 35\r\n", INNER, b"POST /^-main HTTP/1.0")),
    Case("length nominated", post(b"Connection: content-length\r\nContent-Length: 35\r\n", INNER)),
]

BOTH: Final = b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"
CODINGS: Final = [
    Case("coding sound", coding(b" chunked", b"23\r\n" + INNER + b"\r\n0\r\n\r\n")),
    Case("coding in capitals", coding(b" CHUNKED")),
    Case(
        "coding with a tab", coding(b"\tchunked"), "blanks around a value are no part of it (RFC 9110 §5.5)"
    ),
    Case("coding with trailing blanks", coding(b" chunked \t"), "llhttp wants nothing behind chunked"),
    Case("coding in odd case", post(b"tRANSFER-eNCODING: chunked\r\n", b"0\r\n\r\n")),
    Case("coding and length", post(BOTH, b"0\r\n\r\n"), STRICT),
    Case(
        "length and coding",
        post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
        STRICT,
    ),
    Case("coding misspelt", coding(b" xchunked")),
    Case("coding with a letter more", coding(b" chunkedx")),
    Case("coding unknown before chunked", coding(b" gzip, chunked")),
    Case("coding unknown", coding(b" gzip")),
    Case("coding identity", coding(b" identity", b"")),
    Case("coding identity and length", post(b"Content-Length: 3\r\nTransfer-Encoding: identity\r\n")),
    Case("coding chunked not last", coding(b" chunked, gzip")),
    Case("coding chunked twice", coding(b" chunked, chunked")),
    Case("coding with an empty member", coding(b" chunked,"), PLAIN),
    Case("coding behind an empty member", coding(b" ,chunked"), PLAIN),
    Case("coding in two fields", post(b"Transfer-Encoding: chunked\r\n" * 2, b"0\r\n\r\n")),
    Case(
        "coding in two fields, other first", post(b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n")
    ),
    Case("coding empty", coding(b"", b"")),
    Case("coding with a parameter", coding(b" chunked;q=1")),
    Case("coding quoted", coding(b' "chunked"')),
    Case("coding behind a vertical tab", coding(b" \x0bchunked")),
    Case("coding with NUL", coding(b" chunked\0")),
    Case("coding with a Latin-1 letter", coding(b" chunked\xa0")),
    Case("coding with a space before the colon", post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n")),
    Case("coding with a tab before the colon", post(b"Transfer-Encoding\t: chunked\r\n", b"0\r\n\r\n")),
    Case("coding with an underscore", post(b"Transfer_Encoding: chunked\r\n", b"")),
    Case("coding folded", post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"), PLAIN),
    Case(
        "coding in a folded line",
        post(b"Content-Length: 3\r\nX: y\r\n Transfer-Encoding: chunked\r\n"),
        PLAIN,
    ),
    Case("coding in a bare-LF line", post(b"X: y\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), PLAIN),
    Case("coding behind a bare CR", post(b"X: y\rTransfer-Encoding: chunked\r\n", b"")),
    Case(
        "coding on HTTP/1.0",
        post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"POST /^-main HTTP/1.0"),
        "RFC 9112 §6.1: its framing is faulty",
    ),
    Case(
        "coding on HTTP/1.0, kept alive",
        post(b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", INNER, b"POST /^-main HTTP/1.0"),
    ),
    Case(
        "coding with GET",
        get(HOST + b"Transfer-Encoding: chunked\r\n") + b"23\r\n" + INNER + b"\r\n0\r\n\r\n",
    ),
    Case(
        "coding nominated",
        post(b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    ),
]

CHUNKS: Final = [
    Case("chunk sound", chunks(b"3\r\nabc\r\n0\r\n\r\n")),
    Case("chunk size in capitals", chunks(b"A\r\n0123456789\r\n0\r\n\r\n")),
    Case("chunk size with leading zeros", chunks(b"0003\r\nabc\r\n0\r\n\r\n")),
    Case(
        "chunk size of twenty digits",
        chunks(b"00000000000000000003\r\nabc\r\n0\r\n\r\n"),
        "15 digits at most",
    ),
    Case("chunk size that overflows", chunks(b"10000000000000003\r\nabc\r\n0\r\n\r\n")),
    Case("chunk size of 2^63", chunks(b"8000000000000000\r\nabc\r\n0\r\n\r\n")),
    Case("chunk size without digits", chunks(b"\r\nabc\r\n0\r\n\r\n")),
    Case("chunk size with a sign", chunks(b"+3\r\nabc\r\n0\r\n\r\n")),
    Case("chunk size negative", chunks(b"-3\r\nabc\r\n0\r\n\r\n")),
    Case("chunk size with 0x", chunks(b"0x3\r\nabc\r\n0\r\n\r\n")),
    Case("chunk size behind a space", chunks(b" 3\r\nabc\r\n0\r\n\r\n")),
    Case("chunk size before a space", chunks(b"3 \r\nabc\r\n0\r\n\r\n"), "blanks only before an extension"),
    Case("chunk size line ended by LF", chunks(b"3\nabc\r\n0\r\n\r\n"), PLAIN),
    Case("chunk size line with two CRs", chunks(b"3\r\r\nabc\r\n0\r\n\r\n")),
    Case("chunk extension", chunks(b"3;a=b\r\nabc\r\n0\r\n\r\n")),
    Case("chunk extension behind a blank", chunks(b"3 ;a\r\nabc\r\n0\r\n\r\n")),
    Case("chunk extension quoted", chunks(b'3;a="b;c"\r\nabc\r\n0\r\n\r\n')),
    Case("chunk extension with a bare LF", chunks(b"3;a\nb\r\nabc\r\n0\r\n\r\n")),
    Case("chunk extension with a bare CR", chunks(b"3;a\rb\r\nabc\r\n0\r\n\r\n"), PLAIN),
    Case("chunk extension with NUL", chunks(b"3;a\0\r\nabc\r\n0\r\n\r\n"), PLAIN),
    Case("chunk extension of 2 kB", chunks(b"3;" + b"a" * 2000 + b"\r\nabc\r\n0\r\n\r\n"), "bounded at 1 kB"),
    Case("chunk extension that hides a size", chunks(b"3;\r\nabc\r\n23;\n0\r\n\r\n" + INNER + b"0\r\n\r\n")),
    Case("chunk longer than its size", chunks(b"3\r\nabcd\r\n0\r\n\r\n")),
    Case("chunk ended by LF", chunks(b"3\r\nabc\n0\r\n\r\n"), PLAIN),
    Case("chunk ended by CR", chunks(b"3\r\nabc\r0\r\n\r\n")),
    Case("chunk ended by nothing", chunks(b"3\r\nabc0\r\n\r\n")),
    Case("chunk ended by two other bytes", chunks(b"3\r\nabcxx0\r\n\r\n")),
    Case("last chunk of two zeros", chunks(b"3\r\nabc\r\n00\r\n\r\n")),
    Case("last chunk with an extension", chunks(b"0;a=b\r\n\r\n")),
    Case("last chunk ended by LF", chunks(b"0\n\r\n"), PLAIN),
    Case("trailer", chunks(b"0\r\nX-T: 1\r\n\r\n")),
    Case("trailer that frames", chunks(b"0\r\nContent-Length: 35\r\n\r\n"), "taken, and dropped"),
    Case("trailer folded", chunks(b"0\r\nX-T: 1\r\n 2\r\n\r\n"), PLAIN),
    Case("trailer without a colon", chunks(b"0\r\nX-T\r\n\r\n"), PLAIN),
    Case("trailer with a space before the colon", chunks(b"0\r\nX-T : 1\r\n\r\n"), PLAIN),
    Case("trailers ended by LF", chunks(b"0\r\nX-T: 1\n\r\n"), PLAIN),
    Case("trailer section ended by LF", chunks(b"0\r\n\n"), PLAIN),
]

TARGETS: Final = [
    Case("target sound", get()),
    Case("target in absolute form", get(line=b"GET http://h/^-main HTTP/1.1")),
    Case(
        "target in absolute form, another host",
        get(line=b"GET http://i/^-main HTTP/1.1"),
        "RFC 9112 §3.2.2: the target counts",
    ),
    Case("target in absolute form with a user", get(line=b"GET http://u@h/^-main HTTP/1.1"), PLAIN),
    Case("target in absolute form, no Host", get(b"", b"GET http://h/^-main HTTP/1.1"), "RFC 9112 §3.2: 400"),
    Case("target of another scheme", get(line=b"GET ftp://h/^-main HTTP/1.1"), "no proxy for other schemes"),
    Case("target in authority form", get(b"Host: ^-main\r\n", b"GET h:80 HTTP/1.1")),
    Case("target CONNECT", get(b"Host: ^-main\r\n", b"CONNECT h:80 HTTP/1.1"), "no forward proxy"),
    Case(
        "target * with OPTIONS", get(b"Host: ^-main\r\n", b"OPTIONS * HTTP/1.1"), "RFC 9110 §9.3.7 allows it"
    ),
    Case("target * with GET", get(b"Host: ^-main\r\n", b"GET * HTTP/1.1"), "RFC 9112 §3.2.4: only OPTIONS"),
    Case("target without a slash", get(line=b"GET ^-main HTTP/1.1")),
    Case("target with a fragment", get(line=b"GET /^-main#x HTTP/1.1"), PLAIN),
    Case("target with a fragment in the query", get(line=b"GET /^-main?x#y HTTP/1.1"), PLAIN),
    Case("target with a backslash", get(line=b"GET /^-main\\x HTTP/1.1"), "some read it as a slash"),
    Case(
        "target with an escaped NUL", get(line=b"GET /^-main%00 HTTP/1.1"), "it ends strings in some services"
    ),
    Case("target with half an escape", get(line=b"GET /^-main%2 HTTP/1.1"), PLAIN),
    Case("target with a wrong escape", get(line=b"GET /^-main%zz HTTP/1.1"), PLAIN),
    Case("target above the root", get(line=b"GET /../^-main HTTP/1.1"), "normalised: what is routed is sent"),
    Case("target with hidden dots", get(line=b"GET /x/..%2f^-main HTTP/1.1"), "one spelling, one route"),
    Case("target with NUL", get(line=b"GET /^-main\0 HTTP/1.1")),
    Case("target with a control character", get(line=b"GET /^-main\x01 HTTP/1.1"), PLAIN),
    Case("target with DEL", get(line=b"GET /^-main\x7f HTTP/1.1"), PLAIN),
    Case("target with a Latin-1 letter", get(line=b"GET /^-main\xff HTTP/1.1"), "percent-encoded"),
    Case("target with a tab", get(line=b"GET /^-main\tx HTTP/1.1")),
    Case("target with a space", get(line=b"GET /^-main x HTTP/1.1")),
    Case("target of 9 kB", get(line=b"GET /^-main" + b"x" * 9000 + b" HTTP/1.1"), "uri_bytes: 8 kB"),
    Case("target of 70 kB", get(line=b"GET /^-main" + b"x" * 70_000 + b" HTTP/1.1")),
]

LINES: Final = [
    Case("line behind empty lines", b"\r\n\r\n" + get()),
    Case("line behind bare LFs", b"\n\n" + get()),
    Case("line behind a space", b" " + get()),
    Case("line with two spaces", get(line=b"GET  /^-main HTTP/1.1"), PLAIN),
    Case("line with two spaces before the version", get(line=b"GET /^-main  HTTP/1.1"), PLAIN),
    Case("line with a tab", get(line=b"GET\t/^-main HTTP/1.1"), PLAIN),
    Case("line with a trailing space", get(line=b"GET /^-main HTTP/1.1 "), PLAIN),
    Case("line without a version", get(line=b"GET /^-main"), "no HTTP/0.9"),
    Case("line ended by LF", b"GET /^-main HTTP/1.1\nHost: h\r\n\r\n", PLAIN),
    Case("line in HTTP/1.2", get(line=b"GET /^-main HTTP/1.2"), PLAIN),
    Case("line in HTTP/1.10", get(line=b"GET /^-main HTTP/1.10"), PLAIN),
    Case("line in HTTP/01.1", get(line=b"GET /^-main HTTP/01.1")),
    Case("line in HTTP/2.0", get(line=b"GET /^-main HTTP/2.0"), "HTTP/1 only"),
    Case("line in HTTP/0.9", get(line=b"GET /^-main HTTP/0.9"), "HTTP/1 only"),
    Case("line in small letters", get(line=b"GET /^-main http/1.1")),
    Case("line of another protocol", get(line=b"GET /^-main RTSP/1.0")),
    Case("method unknown", get(line=b"BREW /^-main HTTP/1.1"), ANY_TOKEN),
    Case("method in small letters", get(line=b"get /^-main HTTP/1.1"), ANY_TOKEN),
    Case("method that is no token", get(line=b"G(T /^-main HTTP/1.1")),
    Case("method empty", get(line=b" /^-main HTTP/1.1")),
    Case("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
]

FIELDS: Final = [
    Case("Host missing", get(b""), "RFC 9112 §3.2: 400"),
    Case("Host twice, equal", get(HOST * 2), "RFC 9112 §3.2: 400"),
    Case("Host twice, different", get(HOST + b"Host: i\r\n")),
    Case("Host empty", get(b"Host:\r\n"), "no http resource has an empty host (RFC 9110 §4.2.1)"),
    Case("Host with a path", get(b"Host: h/x\r\n"), PLAIN),
    Case("Host with a user", get(b"Host: u@h\r\n"), PLAIN),
    Case("Host with two ports", get(b"Host: h:1:2\r\n"), PLAIN),
    Case("Host with a port of letters", get(b"Host: h:x\r\n"), PLAIN),
    Case("Host listed", get(b"Host: h, i\r\n"), PLAIN),
    Case("Host with a space", get(b"Host: h i\r\n"), PLAIN),
    Case("Host of IPv6", get(b"Host: [::1]:80\r\n")),
    Case("Host of IPv6, open", get(b"Host: [::1\r\n"), PLAIN),
    Case("Host missing in HTTP/1.0", get(b"", b"GET /^-main HTTP/1.0")),
    Case("field folded", get(HOST + b"X: a\r\n b\r\n"), PLAIN),
    Case("field with a bare CR", get(HOST + b"X: a\rb\r\n")),
    Case("field with NUL", get(HOST + b"X: a\0b\r\n"), "RFC 9110 §5.5: refused, or a space"),
    Case("field with a control character", get(HOST + b"X: a\x01b\r\n"), PLAIN),
    Case("field with DEL", get(HOST + b"X: a\x7fb\r\n"), PLAIN),
    Case("field with a Latin-1 letter", get(HOST + b"X: \xe4\r\n")),
    Case("field with a space before the colon", get(HOST + b"X : a\r\n")),
    Case("field without a name", get(HOST + b": a\r\n"), PLAIN),
    Case("field whose name is no token", get(HOST + b"X(: a\r\n"), PLAIN),
    Case("field whose name has a Latin-1 letter", get(HOST + b"X\xe4: a\r\n"), PLAIN),
    Case("field without a colon", get(HOST + b"X\r\n"), PLAIN),
    Case("field with a leading space, first", get(b" X: a\r\n" + HOST)),
    Case("field ended by LF", get(HOST + b"X: a\nY: b\r\n"), PLAIN),
    Case("head ended by LF", b"GET /^-main HTTP/1.1\r\nHost: h\r\n\n", PLAIN),
    Case("fields of 40 kB", get(HOST + b"X: " + b"a" * 40_000 + b"\r\n")),
    Case("fields, 150 of them", get(HOST + b"X: a\r\n" * 150), "header_fields: 100"),
]

CONNECTIONS: Final = [
    Case("two in a row", get() + get(line=b"GET /^-end HTTP/1.1"), asks=("main", "end", "end")),
    Case("close, and more behind it", get(HOST + b"Connection: close\r\n")),
    Case("HTTP/1.0, and more behind it", get(line=b"GET /^-main HTTP/1.0")),
    Case("HTTP/1.0 kept alive", get(HOST + b"Connection: keep-alive\r\n", b"GET /^-main HTTP/1.0")),
    Case("Host nominated", get(HOST + b"Connection: host\r\n")),
    Case("X-Forwarded-For nominated", get(HOST + b"Connection: close, X-Forwarded-For\r\n")),
    Case("Expect", post(b"Expect: 100-continue\r\nContent-Length: 35\r\n", INNER)),
    Case("Expect without a body", get(HOST + b"Expect: 100-continue\r\n")),
    Case(
        "Expect something else",
        get(HOST + b"Expect: tea\r\n"),
        "ignored: RFC 9110 §10.1.1 allows 417, asks none",
    ),
    Case(
        "Expect on HTTP/1.0",
        post(b"Expect: 100-continue\r\nContent-Length: 3\r\n", line=b"POST /^-main HTTP/1.0"),
    ),
    Case(
        "Upgrade to h2c",
        get(HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n"),
    ),
    Case("Upgrade with a body", post(b"Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 35\r\n", INNER)),
    Case(
        "Upgrade that is refused",
        get(HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        "the service may refuse it itself",
    ),
    Case(
        "Max-Forwards of 0",
        get(HOST + b"Max-Forwards: 0\r\n", b"OPTIONS /^-main HTTP/1.1"),
        "answered here",
        ("end",),
    ),
    Case("TRACE", get(line=b"TRACE /^-main HTTP/1.1"), "the service's own matter"),
    Case(
        "TRACE with a body",
        post(b"Content-Length: 35\r\n", INNER, b"TRACE /^-main HTTP/1.1"),
        "a body is framed",
    ),
]

REAL_METHODS: Final = (
    *(b"LIST", b"LABEL", b"VERSION-CONTROL", b"BAN", b"RPC_IN_DATA", b"BITS_POST", b"PROPFIND", b"QUERY"),
)
REAL_CLIENTS: Final = [
    *(
        Case(
            f"method {method.decode()}", post(b"Content-Length: 35\r\n", INNER, method + b" /^-main HTTP/1.1")
        )
        for method in REAL_METHODS
    ),
    Case("CONNECT with a path", get(line=b"CONNECT /^-main HTTP/1.1")),
    Case("url nested in the path", get(line=b"GET /f/https://example.org/^-main HTTP/1.1")),
    Case("escapes kept as they are", get(line=b"GET /%7Ea%2Fb%0d/^-main HTTP/1.1")),
    Case("UTF-8 in the path", get(line="GET /Zürich/^-main HTTP/1.1".encode())),
    Case("UTF-8 in the query", get(line="GET /^-main?q=Zürich HTTP/1.1".encode())),
    Case("HTTP/1.0 without Host", get(b"", b"GET /^-main HTTP/1.0")),
    Case("websocket scheme", get(line=b"GET ws://h/^-main HTTP/1.1"), "no http resource"),
    Case(
        "Upgrade: tcp with a body, as docker asks",
        post(b"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n", b"{}"),
    ),
    Case(
        "trailers announced",
        post(b"TE: trailers\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n", b"0\r\nX: 1\r\n\r\n"),
    ),
    Case(
        "claims of a stranger",
        get(HOST + b"X-Forwarded-For: 1.1.1.1\r\nForwarded: for=1.1.1.1;proto=https\r\n"),
    ),
    Case("claims that are malformed", get(HOST + b'X-Forwarded-For: , ,\r\nForwarded: for="\r\n')),
]
"""What clients and services that people use send."""

CASES: Final = [
    *LENGTHS,
    *CODINGS,
    *CHUNKS,
    *TARGETS,
    *LINES,
    *FIELDS,
    *CONNECTIONS,
    *REAL_CLIENTS,
]
