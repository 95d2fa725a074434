"""The configuration: a TOML file and the environment -> checked structs. A bad key is named by its path.

This module only nests the settings that live beside what they set. Keys are snake_case in the file; the same
structs are camelCase in the admin API.
"""

import ipaddress
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from gateway.core.routing.service import Name, ServiceSettings
from gateway.core.settings.base import Settings
from gateway.core.settings.faults import camel, first_fault, snake
from gateway.core.settings.freeze_window import FreezeWindow
from gateway.core.settings.limits import Limits, Millis, Timeouts
from gateway.core.settings.observing import AccessLogSettings, OtelSettings, TraceSettings, statuses_of
from gateway.core.settings.secrets import hidden
from gateway.core.settings.store_url import is_postgres, label_of
from gateway.core.settings.targets import Listener, TargetRules, parse_target, parse_url
from gateway.core.settings.text import FRAMING, FilePath, Host
from gateway.errors import ConfigError, GatewayError

SEARCH: Final = (Path("config/gateway.toml"), Path("/etc/gateway/gateway.toml"))
ENV_PREFIX: Final = "GATEWAY__"
TEXTS: Final = (["store", "password"],)
"""Keys whose value in the environment is text whatever it looks like."""
FREE_FORM: Final = frozenset({"headers", "body", "json_value", "values"})
"""Keys whose tables hold users' own names, which are left as written."""


class TlsSettings(Settings, frozen=True, kw_only=True):
    """Certificate chain and key, PEM files; read again on SIGHUP."""

    certificate: FilePath
    key: FilePath


class ListenSettings(Settings, frozen=True, kw_only=True):
    """An address clients connect to."""

    address: str = "0.0.0.0:4200"
    tls: TlsSettings | tuple[TlsSettings, ...] | None = None
    """Several: chosen by SNI, the first when nothing matches."""
    proxy_protocol: bool = False
    """Require a PROXY protocol header (v1 or v2) on each connection."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose X-Forwarded-* and Forwarded are believed; others' are replaced."""

    @property
    def certificates(self) -> tuple[TlsSettings, ...]:
        """Return the certificates as a tuple: empty for plain text."""
        if self.tls is None:
            return ()
        return self.tls if isinstance(self.tls, tuple) else (self.tls,)


class AdminTlsSettings(TlsSettings, frozen=True, kw_only=True):
    """The admin listener's certificate chain and key, PEM files; read again on SIGHUP."""

    client_ca: FilePath | None = None
    """PEM file of the CAs of which clients must show a certificate; None: they need none."""


class AdminSettings(Settings, frozen=True, kw_only=True):
    """Where operators connect."""

    address: str = "127.0.0.1:4201"
    tls: AdminTlsSettings | None = None
    insecure: bool = False
    """Whether tokens may cross a network in plain text: another address than a loopback one without `tls`."""
    allowed_targets: tuple[str, ...] = ()
    """Networks a version's url may lead to; empty: any that is not refused outright."""
    allowed_sockets: tuple[FilePath, ...] = ()
    """Folders whose socket files the API may name in `unix:` urls; those this file names it may anyway."""
    second_person: bool = False
    """Whether what sets weights, or moves all traffic unwatched, is confirmed by a second person."""
    hosts: tuple[Host, ...] = ()
    """Names it is reached by, besides addresses, `localhost` and this machine's own name."""


class StoreSettings(Settings, frozen=True, kw_only=True):
    """Where state is kept."""

    url: str = "sqlite:///var/gateway.db"
    """`sqlite:///relative/path`, `sqlite:////absolute/path`, or `postgresql://user@host/database`."""
    password: str = ""
    """Of PostgreSQL, better by the environment; empty: libpq's ways, PGPASSWORD and ~/.pgpass."""
    password_file: FilePath | None = None
    """Holds the password, and is read anew for each session."""

    @property
    def path(self) -> Path:
        """Return the database file. Only of SQLite."""
        return Path(self.url.removeprefix("sqlite:///"))

    @property
    def folder(self) -> Path:
        """Return where the gateway keeps what belongs to one machine: beside the file, or in var."""
        return Path("var") if is_postgres(self.url) else self.path.parent


class ClusterSettings(Settings, frozen=True, kw_only=True):
    """This gateway among those that share its database."""

    name: Name | None = None
    """What the others call it; None: the machine's name."""
    serve: bool = False
    """Serve by the store's state while another one is in charge, instead of standing by."""
    isolation: Annotated[int, Meta(ge=5_000, le=86_400_000)] = 30_000
    """After so long without the database, milliseconds, open rollouts are served by their old versions. It is
    longer than it takes another gateway to be in charge."""


class ForwardingSettings(Settings, frozen=True, kw_only=True):
    """What the gateway says of itself to the services behind it."""

    via: bool = False
    """Add a Via field (RFC 9110 §7.6.3). Off: servers in the manner of nginx stop compressing for it."""


class ShutdownSettings(Settings, frozen=True, kw_only=True):
    """How the gateway leaves, in milliseconds."""

    delay: Millis = 0
    """Not ready but still accepting, so that a balancer in front can notice."""
    drain: Millis = 30_000
    """How long running exchanges may take."""
    orphan_timeout: Millis = 3_600_000
    """How long workers serve on without a control process."""


class RateLimitSettings(Settings, frozen=True, kw_only=True):
    """What one token and one address may do at the admin API."""

    starts_per_minute: Annotated[int, Meta(ge=1)] = 5
    changes_per_minute: Annotated[int, Meta(ge=1)] = 60
    failed_logins_per_15_minutes: Annotated[int, Meta(ge=1)] = msgspec.field(
        default=10, name="failedLoginsPer15Minutes"
    )


class FileVersion(Settings, frozen=True, kw_only=True):
    """A version to start with; only used while the service has no version in the store."""

    version: Name
    url: str
    replicas: tuple[str, ...] = ()
    weight: Annotated[int, Meta(ge=0, le=100)] = 0
    shutdown_url: str | None = None


class FileService(ServiceSettings, frozen=True, kw_only=True):
    """A service declared in the file."""

    name: Name
    version: tuple[FileVersion, ...] = ()

    def settings(self) -> ServiceSettings:
        """Return the part the API shares: routes and policies."""
        fields = {name: getattr(self, name) for name in ServiceSettings.__struct_fields__}
        return ServiceSettings(**fields)


class Config(Settings, frozen=True, kw_only=True):
    """Everything, checked."""

    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Worker processes; 0: one per core."""
    listen: ListenSettings | tuple[ListenSettings, ...] = ListenSettings()
    admin: AdminSettings = AdminSettings()
    store: StoreSettings = StoreSettings()
    cluster: ClusterSettings = ClusterSettings()
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    proxy: ForwardingSettings = ForwardingSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    access_log: AccessLogSettings = AccessLogSettings()
    trace: TraceSettings = TraceSettings()
    rate_limit: RateLimitSettings = RateLimitSettings()
    freeze_windows: tuple[FreezeWindow, ...] = ()
    """When changes are frozen by schedule."""
    service: tuple[FileService, ...] = ()

    @property
    def listeners(self) -> tuple[ListenSettings, ...]:
        """Return every `[[listen]]` table."""
        return self.listen if isinstance(self.listen, tuple) else (self.listen,)

    @property
    def socket_files(self) -> tuple[str, ...]:
        """Return every socket file that a service's urls name."""
        urls = (url for service in self.service for _, url in _targets(service))
        return tuple(parse_url(url).path for url in urls if url.startswith("unix:"))

    @property
    def worker_count(self) -> int:
        """Return how many workers to run."""
        return self.workers or len(os.sched_getaffinity(0))


def find(path: str | None) -> Path | None:
    """Return the file to read: `path`, else the first of SEARCH that exists, else None for the defaults."""
    if path is not None:
        return Path(path)
    return next((candidate for candidate in SEARCH if candidate.is_file()), None)


def load(
    path: str | Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read and check the configuration.

    path: the file, or None for the usual places. overrides: `{"admin.address": …}` from the command line,
    strongest. environ: variables named GATEWAY__TABLE__KEY, stronger than the file. Raises ConfigError
    naming file or key.
    """
    found = find(str(path) if path is not None else None)
    tree = read_file(found) if found is not None else {}
    apply_environment(tree, os.environ if environ is None else environ)
    for dotted, value in (overrides or {}).items():
        _set(tree, dotted.split("."), value)
    return check(tree)


def read_file(path: Path) -> dict[str, Any]:
    """Return the file's tables. Raises ConfigError for a file that cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise ConfigError(str(path), f"cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(str(path), f"is not UTF-8 text (byte {exc.start})") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(str(path), f"is not TOML: {exc}") from exc


def apply_environment(tree: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Lay `GATEWAY__ADMIN__ADDRESS=…` over the tree; `…_FILE` names a file that holds the value."""
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX):
            continue
        raw, keys = environ[name], name.removeprefix(ENV_PREFIX).lower().split("__")
        if keys[-1].endswith("_file"):
            keys[-1] = keys[-1].removesuffix("_file")
            try:
                raw = Path(raw).read_text("utf-8").strip()
            except OSError as exc:
                raise ConfigError(name, f"{raw}: {exc.strerror or exc}") from exc
        try:
            _set(tree, keys, raw if keys in TEXTS else _scalar(raw))
        except KeyError as exc:
            raise ConfigError(name, "names a key inside a value that is not a table") from exc


def check(tree: Mapping[str, Any]) -> Config:
    """Return the tree as checked structs. Raises ConfigError with the first bad key's path."""
    tree = _camel(tree, "")
    _switch_off(tree.get("service"))
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as exc:
        fault = first_fault(tree, Config, exc)
        raise ConfigError(_path_of(fault.steps), fault.reason) from exc
    _check_gateway(config)
    for index, service in enumerate(config.service):
        _check_service(f"service[{index}]", service)
        _check_urls(f"service[{index}]", service, config)
    _check_unique(config.service)
    return config


def diff(old: Config, new: Config) -> list[str]:
    """Return one line for each key that differs, `path: old -> new`, services matched by name."""
    trees = [_by_name(msgspec.to_builtins(config)) for config in (old, new)]
    before, after = map(_flat, trees)
    shown_before, shown_after = (_flat(hidden(tree)) for tree in trees)
    lines = []
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            lines.append(f"{key}: {shown_before.get(key, 'absent')} -> {shown_after.get(key, 'absent')}")
    return lines


def _check_gateway(config: Config) -> None:
    many = isinstance(config.listen, tuple)
    for index, listen in enumerate(config.listeners):
        path = f"listen[{index}]" if many else "listen"
        _checked(f"{path}.address", Listener.of, listen.address)
        _check_networks(f"{path}.trusted_proxies", listen.trusted_proxies)
    if not config.listeners:
        raise ConfigError("listen", "at least one address is needed")
    _checked("admin.address", Listener.of, config.admin.address)
    if config.admin.tls is None and not config.admin.insecure and not is_loopback(config.admin.address):
        raise ConfigError(
            "admin.address",
            f"{config.admin.address} is no loopback address, and tokens would cross the network in plain "
            "text: set admin.tls = {certificate, key}, or admin.insecure = true where the network is private",
        )
    _check_networks("admin.allowed_targets", config.admin.allowed_targets)
    if config.access_log.only is not None and config.access_log.only.status is not None:
        _checked("access_log.only.status", statuses_of, config.access_log.only.status)
    if config.trace.otel is not None:
        _check_otel("trace.otel", config.trace.otel)
    _check_store(config.store)


def _check_store(store: StoreSettings) -> None:
    if is_postgres(store.url):
        try:
            label_of(store.url)
        except ValueError as exc:
            raise ConfigError("store.url", "is no url of a database") from exc
        if find_spec("asyncpg") is None:
            raise ConfigError("store.url", "PostgreSQL needs an extra: pip install 'gateway[pg]'")
        return
    if not store.url.startswith("sqlite:///") or not store.url.removeprefix("sqlite:///"):
        shown = repr(store.url) if "@" not in store.url else "what it says"  # a password, perhaps
        raise ConfigError("store.url", f"{shown} is neither sqlite:///PATH nor postgresql://…")
    for name in ("password", "password_file"):
        if getattr(store, name):
            raise ConfigError(f"store.{name}", "is only for postgresql://")


def _check_otel(path: str, otel: OtelSettings) -> None:
    _checked(f"{path}.endpoint", parse_url, otel.endpoint)
    if not otel.endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"{path}.endpoint", f"{otel.endpoint!r} is not http:// or https://")
    for name in otel.headers:
        if name.lower() in FRAMING or name.lower() == "content-type":
            raise ConfigError(f"{path}.headers.{name}", "is the gateway's to say")
    if not is_installed():
        raise ConfigError(path, "spans are sent with an extra that is missing: pip install 'gateway[otel]'")


def is_installed() -> bool:
    """Tell whether the extra `otel` is there."""
    try:
        return find_spec("opentelemetry.proto") is not None
    except ModuleNotFoundError:
        return False


def is_loopback(address: str) -> bool:
    """Return whether nobody but this machine reaches `host:port`."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_service(path: str, service: FileService) -> None:
    if not service.routes:
        raise ConfigError(f"{path}.routes", "at least one route is needed")
    names = [version.version for version in service.version]
    if len(set(names)) != len(names):
        raise ConfigError(f"{path}.version", "two versions have the same name")


def _check_urls(path: str, service: FileService, config: Config) -> None:
    """Refuse urls the gateway must not call, as the admin API does. Names are judged when they resolve."""
    addresses = [listen.address for listen in config.listeners] + [config.admin.address]
    own = [Listener.of(address) for address in addresses]
    anywhere = TargetRules(own=lambda: own)
    for key, url in _targets(service):
        _checked(f"{path}.{key}", parse_target if key.endswith(("].url", "replicas")) else parse_url, url)
        _checked(f"{path}.{key}", TargetRules(config.admin.allowed_targets, lambda: own).check, url)
    for index, hook in enumerate(service.webhooks):
        _checked(f"{path}.webhooks[{index}].url", anywhere.check, hook.url)


def _targets(service: FileService) -> Iterator[tuple[str, str]]:
    """Yield (key, url) for everything of a service that `admin.allowed_targets` holds for."""
    if service.fallback is not None and service.fallback.url is not None:
        yield "fallback.url", service.fallback.url
    for index, version in enumerate(service.version):
        yield f"version[{index}].url", version.url
        yield from ((f"version[{index}].replicas", url) for url in version.replicas)
        if version.shutdown_url is not None:
            yield f"version[{index}].shutdown_url", version.shutdown_url


def _check_unique(services: tuple[FileService, ...]) -> None:
    owners: dict[tuple[str, str, str], str] = {}
    names: set[str] = set()
    for index, service in enumerate(services):
        if service.name in names:
            raise ConfigError(f"service[{index}].name", f"{service.name!r} is declared twice")
        names.add(service.name)
        for position, route in enumerate(service.routes):
            for method in route.methods or ("*",):
                key = (route.host.lower(), route.path, method)
                other = owners.setdefault(key, service.name)
                if other != service.name:
                    raise ConfigError(
                        f"service[{index}].routes[{position}]",
                        f"{route.host}{route.path} already leads to service {other!r}",
                    )


def _check_networks(path: str, networks: tuple[str, ...]) -> None:
    for index, network in enumerate(networks):
        try:
            ipaddress.ip_network(network)
        except ValueError as exc:
            raise ConfigError(f"{path}[{index}]", str(exc)) from exc


def _checked(path: str, parse: Any, text: str) -> None:
    try:
        parse(text)
    except (GatewayError, ValueError) as exc:
        raise ConfigError(path, str(exc)) from exc


def _set(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = tree.setdefault(key, {})
        if isinstance(inner, list) and len(inner) == 1:
            inner = inner[0]
        if not isinstance(inner, dict):
            raise KeyError(key)
        tree = inner
    tree[keys[-1]] = value


def _scalar(raw: str) -> Any:
    """Return `raw` as the TOML value it spells, else as the string it is."""
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return raw


def _switch_off(services: Any) -> None:
    """Let `false` switch off what is off unless it is given, too: TOML has no null to say so with."""
    for service in services if isinstance(services, list) else ():
        if isinstance(service, dict):
            for name in ("sticky", "fallback", "concurrency"):
                if service.get(name) is False:
                    del service[name]
            if service.get("smokeTests") is False:
                service["smokeTests"] = {}


def _camel(value: Any, path: str) -> Any:
    if isinstance(value, list):
        return [_camel(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    out: dict[str, Any] = {}
    for key, inner in value.items():
        where = f"{path}.{key}" if path else key
        if key != key.lower():
            raise ConfigError(where, "unknown key")
        out[camel(key)] = inner if key in FREE_FORM else _camel(inner, where)
    return out


def _path_of(steps: Iterable[str]) -> str:
    """Return a path as the file spells it: `service[0].health.unhealthy_threshold`."""
    path = ""
    for step in steps:
        path += f"[{step}]" if step.isdecimal() else f".{snake(step)}"
    return path.removeprefix(".")


def _by_name(tree: Any) -> Any:
    tree["service"] = {service["name"]: service for service in tree.get("service", ())}
    return tree


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping) and tree and not path.endswith(".testers.values"):  # its keys are secrets
        flat: dict[str, Any] = {}
        for key, inner in tree.items():
            flat.update(_flat(inner, f"{path}.{snake(key)}" if path else snake(key)))
        return flat
    return {path: tree}
