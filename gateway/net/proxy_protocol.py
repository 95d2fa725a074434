"""The PROXY protocol, versions 1 and 2: a balancer in front says who its client is, before the first byte.

Strict, because what it says decides whom we trust: anything but a well-formed header ends the connection.
Sections below are those of "The PROXY protocol, versions 1 & 2" (haproxy.org, proxy-protocol.txt).
"""

import ipaddress
import struct
from typing import Final, NamedTuple

from gateway.errors import BadRequest

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
"""How version 2 begins (§2.2); chosen by its authors so that no other protocol starts this way."""
V1_BYTES: Final = 107
"""The longest line of version 1, CRLF included (§2.1)."""
V2_BYTES: Final = 4096
"""The longest header of version 2 we take: at most 216 bytes of addresses, then TLVs, which we skip."""

_V1_START: Final = b"PROXY "
_FIXED: Final = 16
_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _UDP4, _TCP6, _UDP6, _UNIX, _UNIX_DGRAM = 0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32
_ADDRESS_BYTES: Final = {_UNSPEC: 0, _TCP4: 12, _UDP4: 12, _TCP6: 36, _UDP6: 36, _UNIX: 216, _UNIX_DGRAM: 216}


class Source(NamedTuple):
    """Who the balancer says connected to it."""

    host: str
    port: int


class HeaderReader:
    """Finds where the header ends, fed with what has come so far, however it was cut."""

    def __init__(self) -> None:
        self.done = False
        self.source: Source | None = None
        """Once done: the client; None if the balancer speaks for itself (LOCAL) or cannot tell (UNKNOWN)."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> int:
        """Take the next bytes; return how many of them belong to the header: all, while it is not done.

        Raises BadRequest as soon as this cannot become a header we accept.
        """
        before = len(self._buffer)
        self._buffer += data
        end = self._find_end(self._buffer)
        if end is None:
            return len(data)
        header = bytes(self._buffer[:end])
        self.source = _parse_v2(header) if header.startswith(SIGNATURE) else _parse_v1(header)
        self.done = True
        return end - before

    @staticmethod
    def _find_end(buffer: bytearray) -> int | None:
        """Return the header's length, or None if more must come."""
        start = bytes(buffer[: len(SIGNATURE)])
        if SIGNATURE.startswith(start):
            if len(buffer) < _FIXED:
                return None
            end = _FIXED + int.from_bytes(buffer[14:16], "big")
            if end > V2_BYTES:
                raise BadRequest(f"a PROXY header of {end} bytes")
            return end if len(buffer) >= end else None
        if not _V1_START.startswith(start[: len(_V1_START)]):
            raise BadRequest("no PROXY header")
        newline = buffer.find(b"\n", 0, V1_BYTES)
        if newline >= 0:
            return newline + 1
        if len(buffer) >= V1_BYTES:
            raise BadRequest("a PROXY line without an end")
        return None


def _parse_v1(line: bytes) -> Source | None:
    """Return what a line says (§2.1)."""
    if not line.endswith(b"\r\n"):
        raise BadRequest("a PROXY line that does not end in CRLF")
    try:
        words = line[:-2].decode("ascii").split(" ")
    except UnicodeDecodeError as exc:
        raise BadRequest("a PROXY line that is not ASCII") from exc
    if words[1] == "UNKNOWN":
        return None  # whatever follows is to be ignored
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise BadRequest("a malformed PROXY line")
    version = 4 if words[1] == "TCP4" else 6
    source, _ = _address(version, words[2]), _address(version, words[3])
    port, _ = _port(words[4]), _port(words[5])
    return Source(source, port)


def _address(version: int, text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as exc:
        raise BadRequest("a PROXY line with a malformed address") from exc
    if address.version != version or "%" in text:
        raise BadRequest("a PROXY line with an address of another family")
    return _plain(address)


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return an address as text, an IPv4 address in IPv6 clothes (RFC 4291 §2.5.5.2) as IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _port(text: str) -> int:
    if not text.isdigit() or len(text) > 5 or (text != "0" and text.startswith("0")) or int(text) > 65_535:
        raise BadRequest("a PROXY line with a malformed port")
    return int(text)


def _parse_v2(header: bytes) -> Source | None:
    """Return what a binary header says (§2.2). TLVs after the addresses are skipped."""
    command, family = header[12], header[13]
    if command not in (_LOCAL, _PROXY):
        raise BadRequest("a PROXY header of an unknown version or command")
    if command == _LOCAL:
        return None  # the balancer's own check: its real address stands (§2.2)
    if family not in _ADDRESS_BYTES:
        raise BadRequest("a PROXY header of an unknown address family")
    if len(header) < _FIXED + _ADDRESS_BYTES[family]:
        raise BadRequest("a PROXY header too short for its addresses")
    if family == _TCP4:
        host, _, port, _ = struct.unpack_from("!4s4sHH", header, _FIXED)
    elif family == _TCP6:
        host, _, port, _ = struct.unpack_from("!16s16sHH", header, _FIXED)
    elif family == _UNSPEC:
        return None
    else:
        raise BadRequest("a PROXY header for something that is not TCP")
    return Source(_plain(ipaddress.ip_address(host)), port)
