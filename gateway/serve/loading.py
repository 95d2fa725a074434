"""What a start, a reload and `gateway check` read: the configuration, and every certificate file it names.

A file that cannot be used is an error here, with the key's path, and not a worker that dies of it later.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gateway import config
from gateway.config import AdminTlsSettings, Config, ListenSettings
from gateway.control.catalog.entries import context_of
from gateway.errors import ConfigError
from gateway.link.snapshot import CertificatePem
from gateway.link.spawn import ListenSpec
from gateway.net.tls import Certificate, CertificateFiles, ServerTls, expiry_of

T = TypeVar("T")


def load(config_path: str | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Return the checked configuration. Raises ConfigError naming the first wrong key, or unusable file."""
    settings = config.load(config_path, overrides=overrides)
    read_certificates(settings)
    read_admin_tls(settings)
    for index, service in enumerate(settings.service):
        _read(f"service[{index}].tls", partial(context_of, service.tls))
    return settings


def read_certificates(settings: Config) -> tuple[tuple[CertificatePem, ...], ...]:
    """Return what the certificate files of each listen table hold.

    Raises ConfigError with the key's path and the file if one cannot be used.
    """
    certificates = []
    for index, listen in enumerate(settings.listeners):
        table = f"listen[{index}]" if isinstance(settings.listen, tuple) else "listen"
        certificates.append(_read(f"{table}.tls", partial(_certificates_of, listen)))
    return tuple(certificates)


def _certificates_of(listen: ListenSettings) -> tuple[CertificatePem, ...]:
    """Read the files of one listen table, and see that they can be served with."""
    read = [Certificate.read(CertificateFiles(each.certificate, each.key)) for each in listen.certificates]
    if read:
        ServerTls(read)
    return tuple(CertificatePem(each.chain, each.key, each.source) for each in read)


class AdminTls(NamedTuple):
    """What the files of `admin.tls` hold."""

    certificate: Certificate
    client_ca: bytes


def read_admin_tls(settings: Config) -> AdminTls | None:
    """Return what the admin listener serves TLS with; None: it does not.

    Raises ConfigError with the key's path and the file if one cannot be used.
    """
    tls = settings.admin.tls
    return _read("admin.tls", partial(_admin_tls_of, tls)) if tls is not None else None


def _admin_tls_of(tls: AdminTlsSettings) -> AdminTls:
    certificate = Certificate.read(CertificateFiles(tls.certificate, tls.key))
    client_ca = b""
    if tls.client_ca is not None:
        try:
            client_ca = Path(tls.client_ca).read_bytes()
        except OSError as exc:
            raise ConfigError("client_ca", f"cannot use {tls.client_ca}: {exc.strerror or exc}") from exc
        if not client_ca.strip():
            raise ConfigError("client_ca", f"cannot use {tls.client_ca}: it is empty")
    ServerTls([certificate], client_ca)
    return AdminTls(certificate, client_ca)


def certificate_expiries(
    settings: Config, certificates: Sequence[Sequence[CertificatePem]], admin: AdminTls | None
) -> dict[tuple[str, str], float]:
    """Return when certificates expire, Unix seconds, by listen address and name; of two the earlier.

    certificates: by index of the listen table.
    """
    expiries: dict[tuple[str, str], float] = {}
    for listen, of_listen in zip(settings.listeners, certificates, strict=True):
        for each in of_listen:
            name, expiry = expiry_of(Certificate(each.chain, each.key, each.source))
            key = (listen.address, name)
            expiries[key] = min(expiry, expiries.get(key, expiry))
    if admin is not None:
        name, expiry = expiry_of(admin.certificate)
        expiries[settings.admin.address, name] = expiry
    return expiries


def listen_spec(listen: ListenSettings) -> ListenSpec:
    """Return what workers need to know of a listen table."""
    return ListenSpec(
        address=listen.address,
        tls=bool(listen.certificates),
        proxy_protocol=listen.proxy_protocol,
    )


def refuse_unreloadable(old: Config, new: Config) -> None:
    """Raise ConfigError naming a key that only an upgrade can change."""
    for key in ("workers", "store", "cluster", "admin", "shutdown", "rate_limit"):
        if getattr(old, key) != getattr(new, key):
            raise ConfigError(key, "cannot change by a reload; `gateway upgrade` applies it")
    if list(map(listen_spec, old.listeners)) != list(map(listen_spec, new.listeners)):
        raise ConfigError(
            "listen",
            "trusted_proxies and certificates can change by a reload; `gateway upgrade` applies the rest",
        )


def _read(path: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except ConfigError as exc:
        raise ConfigError(path, exc.reason) from exc
