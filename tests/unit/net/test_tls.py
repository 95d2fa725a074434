"""TLS contexts, shaking hands in memory."""

import ssl
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.errors import ConfigError
from gateway.net.tls import (
    Certificate,
    CertificateFiles,
    ServerTls,
    certificate_names,
    expiry_of,
    upstream_context,
)


def shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Run a handshake; return (client, server). Raises what the failing side raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    for _ in range(10):
        for side in tuple(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            return ours, theirs
    raise AssertionError("the handshake does not end")


def names_of(tls: ssl.SSLObject) -> list[str]:
    certificate: Any = tls.getpeercert()
    return [value for _, value in certificate["subjectAltName"]]


def files(pair: tuple[str, str]) -> Certificate:
    return Certificate.read(CertificateFiles(*pair))


def test_certificate_is_chosen_by_name(authority: Any) -> None:
    tls = ServerTls(
        [
            files(authority.issue("first.example")),
            files(authority.issue("Second.Example", "other.example")),
            files(authority.issue("*.wild.example")),
        ]
    )
    client = upstream_context(ca=str(authority.ca))
    for name, found in [
        ("first.example", "first.example"),
        ("SECOND.example", "Second.Example"),
        ("other.example", "Second.Example"),
        ("a.wild.example", "*.wild.example"),
    ]:
        assert names_of(shake_hands(tls.context, client, name)[0])[0] == found


@pytest.mark.parametrize("name", [None, "unknown.example", "a.b.wild.example", "wild.example"])
def test_first_certificate_answers_for_other_names(authority: Any, name: str | None) -> None:
    tls = ServerTls([files(authority.issue("first.example")), files(authority.issue("*.wild.example"))])
    client = upstream_context(ca=str(authority.ca))
    client.check_hostname = False
    assert names_of(shake_hands(tls.context, client, name)[0]) == ["first.example"]


def test_other_certificates_are_put_to_use(authority: Any) -> None:
    tls = ServerTls([files(authority.issue("old.example"))])
    tls.use([files(authority.issue("new.example"))])
    client = upstream_context(ca=str(authority.ca))
    assert names_of(shake_hands(tls.context, client, "new.example")[0]) == ["new.example"]


def test_certificate_that_cannot_be_used_leaves_what_was_there(authority: Any) -> None:
    good, bad = files(authority.issue("good.example")), files(authority.issue("bad.example"))
    tls = ServerTls([good, bad])
    before = tls.context
    with pytest.raises(ConfigError, match=r"certificate-2\.pem"):
        tls.use([good, msgspec.structs.replace(bad, chain=b"nothing")])
    assert tls.context is before
    assert tls.select("bad.example") is not before


def test_certificate_outlives_its_files(authority: Any) -> None:
    """Guards workers born after a file was spoilt: they are given what was read before."""
    pair = authority.issue("a.example")
    certificate = files(pair)
    for path in pair:
        Path(path).unlink()
    shake_hands(ServerTls([certificate]).context, upstream_context(ca=str(authority.ca)), "a.example")


def test_expiry_is_read_from_the_certificate(authority: Any) -> None:
    name, expiry = expiry_of(files(authority.issue("a.example", "b.example")))
    assert name == "a.example"
    assert 0 < expiry - time.time() <= 86_400
    assert expiry_of(files(authority.issue("127.0.0.1")))[0] == ""


def test_expiry_after_2049_is_read_too(authority: Any) -> None:
    """RFC 5280 §4.1.2.5: from 2050 on it is written in another form."""
    certificate = files(authority.issue("a.example", days=365 * 60))
    assert abs(expiry_of(certificate)[1] - time.time() - 60 * 365 * 86_400) < 86_400


def test_key_is_not_shown(authority: Any) -> None:
    assert "PRIVATE" not in repr(files(authority.issue("a.example")))


def test_key_may_be_in_the_certificate_file(authority: Any) -> None:
    certificate, key = authority.issue("a.example")
    Path(certificate).write_text(Path(key).read_text() + Path(certificate).read_text())
    tls = ServerTls([files((certificate, ""))])
    shake_hands(tls.context, upstream_context(ca=str(authority.ca)), "a.example")


def test_missing_files_and_mismatched_keys_are_named(authority: Any, tmp_path: Path) -> None:
    one, other = authority.issue("a.example"), authority.issue("b.example")
    for pair in [(one[0], other[1]), (str(tmp_path / "none.pem"), one[1]), (one[1], one[1])]:
        with pytest.raises(ConfigError, match="cannot use"):
            ServerTls([files(pair)])
    with pytest.raises(ConfigError):
        ServerTls([])
    with pytest.raises(ConfigError, match=r"none\.pem"):
        upstream_context(ca=str(tmp_path / "none.pem"))


def test_encrypted_key_is_an_error_and_asks_nobody(authority: Any, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    certificate, key_file = authority.issue("a.example")
    key = serialization.load_pem_private_key(Path(key_file).read_bytes(), None)
    Path(key_file).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="cannot use"):
        ServerTls([files((certificate, key_file))])


def test_only_http11_is_agreed_on(authority: Any) -> None:
    tls = ServerTls([files(authority.issue("a.example"))])
    client = upstream_context(ca=str(authority.ca))
    client.set_alpn_protocols(["h2", "http/1.1"])
    ours, theirs = shake_hands(tls.context, client, "a.example")
    assert ours.selected_alpn_protocol() == theirs.selected_alpn_protocol() == "http/1.1"


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
def test_older_than_tls_12_is_refused(authority: Any) -> None:
    tls = ServerTls([files(authority.issue("a.example"))])
    client = upstream_context(ca=str(authority.ca))
    client.minimum_version = ssl.TLSVersion.TLSv1_1
    client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        shake_hands(tls.context, client, "a.example")


@pytest.mark.parametrize("name", ["other.example", "127.0.0.1"])
def test_upstream_with_another_name_is_refused(authority: Any, name: str) -> None:
    tls = ServerTls([files(authority.issue("a.example"))])
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tls.context, upstream_context(ca=str(authority.ca)), name)


def test_upstream_of_an_unknown_authority_is_refused_unless_told_otherwise(authority: Any) -> None:
    tls = ServerTls([files(authority.issue("a.example"))])
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tls.context, upstream_context(), "a.example")
    shake_hands(tls.context, upstream_context(verify=False), "other.example")


def test_upstream_may_ask_who_we_are(authority: Any) -> None:
    tls = ServerTls([files(authority.issue("a.example"))])
    tls.context.verify_mode = ssl.CERT_REQUIRED
    tls.context.load_verify_locations(authority.ca)
    certificate, key = authority.issue("gateway.example", client=True)
    client = upstream_context(ca=str(authority.ca), certificate=certificate, key=key)
    _, theirs = shake_hands(tls.context, client, "a.example")
    assert names_of(theirs) == ["gateway.example"]


def test_names_are_read_from_any_certificate(authority: Any) -> None:
    def der(path: str) -> bytes:
        return ssl.PEM_cert_to_DER_cert(Path(path).read_text())

    many = tuple(f"host-{i}.{'x' * 40}.example" for i in range(40))
    assert certificate_names(der(authority.issue(*many)[0])) == list(many)
    assert certificate_names(der(authority.issue("a.example", "10.0.0.1", "::1")[0])) == ["a.example"]
    assert certificate_names(der(str(authority.ca))) == []
