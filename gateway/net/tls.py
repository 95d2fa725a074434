"""TLS: the contexts we serve with, one per certificate, chosen by SNI, and those we meet upstreams with."""

import functools
import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from gateway.errors import ConfigError

ALPN: Final = ["http/1.1"]
"""The one protocol we speak: a client that insists on another fails in the handshake (RFC 7301 §3.2)."""


class CertificateFiles(msgspec.Struct, frozen=True):
    """A certificate with its chain, and its key, as PEM files. `key` empty: it is in the same file."""

    certificate: str
    key: str = ""


class Certificate(msgspec.Struct, frozen=True):
    """A certificate and its key as they were read from their files, PEM."""

    chain: bytes
    key: bytes
    source: str
    """The file it came from, to be named in errors."""

    def __repr__(self) -> str:
        return f"Certificate({self.source!r})"

    @classmethod
    def read(cls, files: CertificateFiles) -> "Certificate":
        """Raises ConfigError naming the file that cannot be read."""
        return cls(_read(files.certificate), _read(files.key or files.certificate), files.certificate)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as exc:
        raise ConfigError("tls", f"cannot use {path}: {exc}") from exc


class ServerTls:
    """The server side of a listener: hands `context` to every accepted connection.

    The first certificate answers clients that send no name, or one that no certificate has. Connections keep
    what they began with when others are put to use.
    """

    def __init__(self, certificates: Sequence[Certificate], client_ca: bytes = b"") -> None:
        """client_ca: PEM of the CAs of which clients must show a certificate; empty: they need none.

        Raises ConfigError if there is no certificate, or one cannot be used.
        """
        self._by_name: dict[str, ssl.SSLContext] = {}
        self.context: ssl.SSLContext
        self.use(certificates, client_ca)

    def use(self, certificates: Sequence[Certificate], client_ca: bytes = b"") -> None:
        """Serve with these from now on. Raises ConfigError, and changes nothing, if one cannot be used."""
        if not certificates:
            raise ConfigError("tls", "at least one certificate is needed")
        contexts = [_server_context(each) for each in certificates]
        for context in contexts if client_ca else ():
            _ask_for_certificate(context, client_ca)
        by_name: dict[str, ssl.SSLContext] = {}
        for each, context in zip(certificates, contexts, strict=True):
            for name in certificate_names(_first_certificate(each)):
                by_name.setdefault(name, context)
        for context in contexts:
            context.sni_callback = self._on_server_name
        self._by_name = by_name
        self.context = contexts[0]

    def select(self, server_name: str | None) -> ssl.SSLContext:
        """Return the context for a client that asked for this name: exact, else wildcard, else the first."""
        if server_name is None:
            return self.context
        name = server_name.lower().rstrip(".")
        found = self._by_name.get(name)
        if found is None:
            found = self._by_name.get(
                "*." + name.partition(".")[2]
            )  # RFC 9525 §6.3: the whole left-most label
        return found or self.context

    def _on_server_name(self, tls: ssl.SSLObject, server_name: str | None, _: ssl.SSLContext) -> None:
        tls.context = self.select(server_name)


def _server_context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Renegotiation is a cheap way to make us compute; compression leaks secrets (CRIME).
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(ALPN)
    with _as_file(certificate.chain) as chain, _as_file(certificate.key) as key:
        _load_chain(context, chain, key, certificate.source)
    return context


def _ask_for_certificate(context: ssl.SSLContext, client_ca: bytes) -> None:
    """Let nobody in without a certificate of these CAs."""
    try:
        context.load_verify_locations(cadata=client_ca.decode("ascii"))
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigError("tls.client_ca", f"holds no CA certificate: {exc}") from exc
    context.verify_mode = ssl.CERT_REQUIRED


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Lend `content` a path, which is all that OpenSSL's binding takes; a key never touches a disk."""
    fd = os.memfd_create("pem")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def upstream_context(
    *,
    verify: bool = True,
    ca: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
) -> ssl.SSLContext:
    """Return a context to meet https upstreams with.

    verify: check chain and name. ca: PEM file of the only CAs to trust, instead of the system's.
    certificate, key: PEM files that say who we are. Raises ConfigError naming the file that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(ALPN)
    if certificate:
        _load_chain(context, certificate, key or "", f"{certificate} and {key}" if key else certificate)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_ca(context, ca)
    return context


@functools.cache
def default_upstream_context() -> ssl.SSLContext:
    """Return the verifying context with the system's CAs. Reading those takes milliseconds, so: once."""
    return upstream_context()


def _load_chain(context: ssl.SSLContext, certificate: str, key: str, shown: str) -> None:
    try:
        # An encrypted key would ask the terminal for its passphrase: an empty one makes that an error.
        context.load_cert_chain(certificate, key or None, password="")
    except (OSError, ValueError) as exc:
        raise ConfigError("tls", f"cannot use {shown}: {exc}") from exc


def _load_ca(context: ssl.SSLContext, ca: str) -> None:
    try:
        context.load_verify_locations(cafile=ca)
    except OSError as exc:
        raise ConfigError("tls", f"cannot use {ca}: {exc}") from exc


# Which names a certificate is for, and how long. The ssl module does not say, for one that is our own.

_SUBJECT_ALT_NAME: Final = b"\x06\x03\x55\x1d\x11"
"""OBJECT IDENTIFIER 2.5.29.17 (RFC 5280 §4.2.1.6), as DER."""
_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_UTC_TIME: Final = 0x17
_OCTET_STRING: Final = 0x04
_DNS_NAME: Final = 0x82


def _first_certificate(certificate: Certificate) -> bytes:
    """Return the DER of the first certificate of a chain that OpenSSL has already accepted."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    text = certificate.chain.decode("latin-1")
    first, last = text.find(begin), text.find(end)
    if first < 0 or last < 0:
        raise ConfigError("tls", f"cannot use {certificate.source}: no certificate in it")
    return ssl.PEM_cert_to_DER_cert(text[first : last + len(end)])


def expiry_of(certificate: Certificate) -> tuple[str, float]:
    """Return the first name of a certificate, or nothing, and when it expires: Unix seconds."""
    der = _first_certificate(certificate)
    names = certificate_names(der)
    return names[0] if names else "", _not_after(der)


def _not_after(der: bytes) -> float:
    """Return the end of a certificate's validity (RFC 5280 §4.1.2.5)."""
    ((_, certificate),) = _der_items(der)
    _, signed = next(_der_items(certificate))
    items = [content for tag, content in _der_items(signed) if tag != _VERSION]
    _, (tag, end) = _der_items(items[3])  # serial number, algorithm, issuer, validity
    text = end.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def certificate_names(der: bytes) -> list[str]:
    """Return the lower-case DNS names, wildcards included, a certificate is valid for (RFC 5280 §4.1)."""
    ((_, certificate),) = _der_items(der)
    _, signed = next(_der_items(certificate))
    for tag, extensions in _der_items(signed):
        if tag == _EXTENSIONS:
            return _alternative_names(extensions)
    return []


def _alternative_names(extensions: bytes) -> list[str]:
    ((_, sequence),) = _der_items(extensions)
    for _, extension in _der_items(sequence):
        if not extension.startswith(_SUBJECT_ALT_NAME):
            continue
        value = next(content for tag, content in _der_items(extension) if tag == _OCTET_STRING)
        ((_, names),) = _der_items(value)
        return [name.decode("ascii").lower() for tag, name in _der_items(names) if tag == _DNS_NAME]
    return []


def _der_items(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, content) of each element.

    Only for what OpenSSL has parsed before: it relies on one-byte tags and sound lengths.
    """
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size], "big")
            at += size
        yield tag, der[at : at + length]
        at += length
