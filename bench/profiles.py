"""What clients send in measurements: no two requests alike, because clients' are not.

A server that remembers one head, or a thousand, gains nothing here; `repeats` alone shows what it would gain.
"""

from random import Random
from typing import Final

import msgspec

COUNT: Final = 9_973
"""Different requests of a profile: a prime, so that connections which take turns do not fall into step."""
HOST: Final = "shop.example.com"
BODY_BYTES: Final = 2_048
CHUNKED_PART: Final = 10
"""One in so many bodies comes in chunks, and as many paths hold escapes."""
SAMPLED_PART: Final = 0.1
"""Of the traces that clients bring: tracing systems record a small part."""

USER_AGENTS: Final = tuple(
    text.format(version=version)
    for version in range(120, 130)
    for text in (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/{version}.0.0.0 Safari/537.36",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/{version}.0.0.0 Safari/537.36",
        "Mozilla/5.0 (X11; Linux x86_64; rv:{version}.0) Gecko/20100101 Firefox/{version}.0",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "CriOS/{version}.0.0.0 Mobile/15E148 Safari/604.1",
    )
)
"""Forty, as a site sees them in an hour."""

Fields = list[tuple[str, str]]


class Profile(msgspec.Struct, frozen=True):
    """What is sent, and how the servers are to take it."""

    name: str
    says: str
    requests: tuple[bytes, ...]
    is_trusted: bool = False
    """Whether the client is a balancer whose X-Forwarded-* count."""


def profile(name: str) -> Profile:
    """Return the profile of that name, one of PROFILES."""
    says, make, is_trusted = PROFILES[name]
    chance = Random(name)
    count = 1 if name == "repeats" else COUNT
    return Profile(name, says, tuple(make(chance, k) for k in range(count)), is_trusted)


def browser(chance: Random, k: int) -> bytes:
    return head("GET", target(chance, k), browser_fields(chance))


def small(chance: Random, k: int) -> bytes:
    return head("GET", target(chance, k), [])


def repeats(_chance: Random, _k: int) -> bytes:
    chance = Random(1)
    fields = [(name, value) for name, value in browser_fields(chance) if name != "X-Request-Id"]
    return head("GET", "/", fields)


def proxied(chance: Random, k: int) -> bytes:
    balancer = [
        ("X-Forwarded-For", f"203.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)}"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", HOST),
        ("X-Forwarded-Port", "443"),
        ("Via", "1.1 balancer"),
    ]
    fields = [field for field in browser_fields(chance) if field[0] != "X-Request-Id"]
    return head("GET", target(chance, k), [*fields, *balancer, ("X-Request-Id", hexadecimal(chance, 32))])


def post(chance: Random, k: int) -> bytes:
    item = '{{"id":{id},"name":"{name}","price":{price},"tags":["garden","chair"]}}'
    items: list[str] = []
    while len(",".join(items)) < BODY_BYTES:
        items.append(
            item.format(
                id=chance.randrange(10**9), name=hexadecimal(chance, 16), price=chance.randrange(9999)
            )
        )
    body = f"[{','.join(items)}]".encode()[: BODY_BYTES - 1] + b"]"
    fields = [*browser_fields(chance), ("Content-Type", "application/json")]
    if k % CHUNKED_PART == 0:
        framing = [("Transfer-Encoding", "chunked")]
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        framing = [("Content-Length", str(len(body)))]
    return head("POST", target(chance, k), fields + framing) + body


def browser_fields(chance: Random) -> Fields:
    """Return the ten usual fields of a page's own request, and half the time a request id."""
    referer = f"https://{HOST}/catalogue/{chance.randrange(10**6)}?page={chance.randrange(40)}&sort=price"
    cookie = (
        f"session={hexadecimal(chance, 32)}; uid={chance.randrange(10**7)}; theme=dark; consent=all; "
        f"_ga=GA1.2.{chance.randrange(10**10)}.1700000000; _cart={hexadecimal(chance, 8)}"
    )
    sampled = "01" if chance.random() < SAMPLED_PART else "00"
    fields = [
        ("User-Agent", chance.choice(USER_AGENTS)),
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
        ("Accept-Language", "en-GB,en;q=0.9,de-DE;q=0.8,de;q=0.7"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Referer", referer),
        ("Cookie", cookie),
        ("traceparent", f"00-{hexadecimal(chance, 32)}-{hexadecimal(chance, 16)}-{sampled}"),
        ("Cache-Control", "max-age=0"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Mode", "cors"),
    ]
    if chance.random() < 0.5:
        fields.append(("X-Request-Id", hexadecimal(chance, 32)))
    return fields


def target(chance: Random, k: int) -> str:
    """Return another target each time; some hold escapes."""
    if k % CHUNKED_PART == 1:
        return f"/api/v1/search/caf%C3%A9%20au%20lait/{k}?q=%22{chance.randrange(10**6)}%22&page=2"
    return f"/api/v1/orders/{chance.randrange(10**9)}/items?page={k}&sort=price"


def head(method: str, path: str, fields: Fields) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode()


def hexadecimal(chance: Random, digits: int) -> str:
    return f"{chance.getrandbits(4 * digits):0{digits}x}"


PROFILES: Final = {
    "browser": ("ten usual fields, half the time X-Request-Id; no two heads alike", browser, False),
    "small": ("Host only; another path each time", small, False),
    "proxied": ("the browser's from a trusted balancer: X-Forwarded-*, Via, X-Request-Id", proxied, True),
    "post": ("2 KB of JSON, one body in ten chunked", post, False),
    "repeats": ("best case: one head, again and again", repeats, False),
}
