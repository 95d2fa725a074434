"""The configuration: what is wrong is named by its path, and nothing is half-read."""

from pathlib import Path
from typing import Final

import pytest

from gateway import config
from gateway.core.routing.service import ServiceSettings
from gateway.errors import ConfigError

SERVICE = """
[[service]]
name = "auth"
routes = [{ path = "/api" }]
"""


def load(tmp_path: Path, text: str, **environ: str) -> config.Config:
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    return config.load(file, environ=environ)


def test_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == config.Config()


def test_shipped_file_is_the_defaults() -> None:
    shipped = Path(__file__).parents[2] / "config/gateway.toml"
    assert config.load(shipped, environ={}) == config.Config()


def test_shipped_example_is_valid_and_says_the_defaults(tmp_path: Path) -> None:
    shipped = (Path(__file__).parents[2] / "config/gateway.toml").read_text()
    lines = shipped[shipped.index("# [[service]]") :].splitlines()
    service = load(tmp_path, "\n".join(line.removeprefix("# ").removeprefix("#") for line in lines)).service[
        0
    ]
    default = ServiceSettings()
    for policy in ("health", "breaker", "retry", "version_header"):
        assert getattr(service, policy) == getattr(default, policy), policy


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("wrokers = 1", "wrokers", "unknown key"),
        (SERVICE + "helth = {}", "service[0].helth", "unknown key"),
        ("[timeouts]\nclientHeader = 5", "timeouts.clientHeader", "unknown key"),
        ("[timeouts]\nclient_header = 'x'", "timeouts.client_header", "Expected `int`, got `str`"),
        ("[timeouts]\nclient_header = 0", "timeouts.client_header", "Expected `int` >= 1"),
        ("[listen]\naddress = 'nowhere'", "listen.address", "'nowhere' is not host:port"),
        ("[listen]\naddress = 'a.b:80'", "listen.address", "'a.b' is not a numeric address"),
        ("[[listen]]\n[[listen]]\naddress = ':99999'", "listen[1].address", "':99999' is not host:port"),
        ("[listen]\ntrusted_proxies = ['10.0.0.1/8']", "listen.trusted_proxies[0]", "has host bits set"),
        ("[store]\nurl = 'mysql:x'", "store.url", "'mysql:x' is neither sqlite:///PATH nor postgresql://…"),
        ("[[service]]\nname = 'a'", "service[0].routes", "at least one route is needed"),
        ("[[service]]\nroutes = []", "service[0].name", "is required"),
        (SERVICE + "health = true", "service[0]", "health is a table of settings, or false"),
        (SERVICE + "fallback = {}", "service[0].fallback", "exactly one of status, version, url"),
        (SERVICE + "health = { expected_status = '9' }", "service[0].health.expected_status", "not a status"),
        (
            SERVICE + "[[service.version]]\nversion = 'v1'\nurl = 'ftp://x'",
            "service[0].version[0].url",
            "ftp",
        ),
        (SERVICE + SERVICE, "service[1].name", "'auth' is declared twice"),
        (
            SERVICE + SERVICE.replace("auth", "shop"),
            "service[1].routes[0]",
            "*/api already leads to service 'auth'",
        ),
        ("[rate_limit]\nfailed_logins_per_15_minutes = 0", "rate_limit.failed_logins_per_15_minutes", ">= 1"),
    ],
)
def test_wrong_key_is_named_by_its_path(tmp_path: Path, text: str, path: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.path == path
    assert reason in caught.value.reason


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        config.load(tmp_path / "none.toml", environ={})


def test_file_that_is_not_toml_is_named_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not TOML.*line 2"):
        load(tmp_path, "workers = 1\nworkers = ,")


def test_environment_is_stronger_than_the_file(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("sqlite:////srv/gateway.db\n")
    loaded = load(
        tmp_path,
        "workers = 1\n[admin]\naddress = '127.0.0.1:1'",
        GATEWAY__WORKERS="3",
        GATEWAY__ADMIN__ADDRESS="127.0.0.1:5201",
        GATEWAY__STORE__URL_FILE=str(secret),
        GATEWAY_TOKEN="not ours",
    )
    assert (loaded.workers, loaded.admin.address) == (3, "127.0.0.1:5201")
    assert loaded.store.path == Path("/srv/gateway.db")


def test_command_line_is_stronger_than_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("")
    loaded = config.load(file, overrides={"workers": 5}, environ={"GATEWAY__WORKERS": "3"})
    assert loaded.workers == 5


def test_unreadable_secret_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GATEWAY__STORE__URL_FILE"):
        load(tmp_path, "", GATEWAY__STORE__URL_FILE=str(tmp_path / "none"))


def test_users_own_names_stay_as_written(tmp_path: Path) -> None:
    text = SERVICE + "health = { headers = { X_Under = 'a', 'Content-Type' = 'b' } }"
    health = load(tmp_path, text).service[0].health
    assert not isinstance(health, bool)
    assert health.headers == {"X_Under": "a", "Content-Type": "b"}


def test_policy_is_switched_off_by_false(tmp_path: Path) -> None:
    service = load(tmp_path, SERVICE + "health = false\nretry = false\nbreaker = false").service[0]
    assert (service.health, service.retry, service.breaker) == (False, False, False)


def test_diff_names_what_changed_by_service_name(tmp_path: Path) -> None:
    old = load(tmp_path, "workers = 1" + SERVICE)
    new = load(tmp_path, "workers = 2" + SERVICE.replace("/api", "/v2"))
    lines = config.diff(old, new)
    assert "workers: 1 -> 2" in lines
    assert any(line.startswith("service.auth.routes") and "/v2" in line for line in lines)
    assert config.diff(old, old) == []


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ('version = [{ version = "v1", url = "http://169.254.169.254" }]', "service[0].version[0].url"),
        ('version = [{ version = "v1", url = "http://127.0.0.1:4200" }]', "service[0].version[0].url"),
        (
            'version = [{ version = "v1", url = "http://127.0.0.1", shutdown_url = "http://x@127.0.0.1/" }]',
            "service[0].version[0].shutdown_url",
        ),
        ('fallback = { url = "http://169.254.169.254" }', "service[0].fallback.url"),
        ('webhooks = [{ url = "http://127.0.0.1:4201/" }]', "service[0].webhooks[0].url"),
        ('fallback = { url = "http://192.0.2.1" }', "service[0].fallback.url"),
    ],
)
def test_url_that_leads_where_none_may_is_refused_by_its_path(tmp_path: Path, lines: str, path: str) -> None:
    text = '[admin]\nallowed_targets = ["127.0.0.0/8"]\n' + SERVICE + lines
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    assert refused.value.path == path


def test_webhook_may_leave_the_allowed_targets(tmp_path: Path) -> None:
    text = '[admin]\nallowed_targets = ["127.0.0.0/8"]\n' + SERVICE
    assert load(tmp_path, text + 'webhooks = [{ url = "https://192.0.2.1/chat" }]').service[0].webhooks


def test_false_switches_off_what_has_no_default_as_well(tmp_path: Path) -> None:
    lines = "".join(f"{name} = false\n" for name in ("sticky", "fallback", "concurrency", "smoke_tests"))
    service = load(tmp_path, SERVICE + lines).service[0]
    assert (service.sticky, service.fallback, service.concurrency) == (None, None, None)
    assert service.smoke_tests is not None and service.smoke_tests.endpoints == (), (
        "none, not the default one"
    )


def test_reload_tells_no_secret(tmp_path: Path) -> None:
    hook = 'webhooks = [{ url = "http://127.0.0.1:1/", secret = "%s" }]'
    old, new = (load(tmp_path, SERVICE + hook % secret) for secret in ("hunter2", "swordfish"))
    (line,) = config.diff(old, new)
    assert line.startswith("service.auth.webhooks: ")
    assert "hunter2" not in line and "swordfish" not in line
    health = 'health = { headers = { Authorization = "%s" } }'
    old, new = (load(tmp_path, SERVICE + health % secret) for secret in ("hunter2", "swordfish"))
    assert config.diff(old, new) == ["service.auth.health.headers.authorization: *** -> ***"]


TESTERS = '[[service]]\nname = "a"\nroutes = [{ path = "/" }]\ntesters = { cookie = "c", values = %s }\n'


def test_secrets_of_testers_stay_as_written(tmp_path: Path) -> None:
    (service,) = load(tmp_path, TESTERS % '{ "My_Secret" = "v1" }').service
    assert service.testers is not None
    assert service.testers.values == {"My_Secret": "v1"}


def test_reload_tells_no_tester_secret(tmp_path: Path) -> None:
    """They are the keys of a table, which a diff names."""
    old = load(tmp_path, TESTERS % '{ hunter2 = "v1" }')
    new = load(tmp_path, TESTERS % '{ hunter3 = "v1", hunter4 = "@new" }')
    (line,) = config.diff(old, new)
    assert line.startswith("service.a.testers.values: ")
    assert "hunter" not in line


def test_wrong_tester_is_named_without_its_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, TESTERS % '{ hunter2 = "@old" }')
    assert refused.value.path.startswith("service[0].testers.values")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "is_fine"),
    [
        ("127.0.0.1:4201", True),
        ("127.1.2.3:4201", True),
        ("[::1]:4201", True),
        ("localhost:4201", True),
        ("0.0.0.0:4201", False),
        ("[::]:4201", False),
        ("10.0.0.5:4201", False),
        ("[::ffff:10.0.0.5]:4201", False),
    ],
)
def test_tokens_cross_no_network_in_plain_text_unless_it_is_said(address: str, is_fine: bool) -> None:
    if is_fine:
        config.check({"admin": {"address": address}})
    else:
        with pytest.raises(ConfigError, match=r"admin\.address: .*admin\.tls"):
            config.check({"admin": {"address": address}})
    assert config.check({"admin": {"address": address, "insecure": True}}).admin.insecure
    tls = {"certificate": "c.pem", "key": "k.pem"}
    assert config.check({"admin": {"address": address, "tls": tls}}).admin.tls


# What is recorded


OTEL: Final = "[trace.otel]\nendpoint = 'http://c:4318/v1/traces'\n"


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("[trace]\nsample = 101", "trace.sample", "<= 100"),
        ("[trace]\nsample = -1", "trace.sample", ">= 0"),
        ("[trace]\nexpose = ['everything']", "trace.expose[0]", "everything"),
        ("[trace.otel]", "trace.otel.endpoint", "is required"),
        ("[trace.otel]\nendpoint = 'c:4318'", "trace.otel.endpoint", "c:4318"),
        ("[trace.otel]\nendpoint = 'unix:/run/c.sock'", "trace.otel.endpoint", "is not http:// or https://"),
        (OTEL + "queue = 0", "trace.otel.queue", ">= 1"),
        (OTEL + "headers = { 'a b' = 'c' }", "trace.otel.headers", "token of HTTP"),
        (OTEL + "headers = { Content-Length = '3' }", "trace.otel.headers.Content-Length", "the gateway's"),
        ("[access_log]\nquery = 'hash'", "access_log.query", "hash"),
        ("[access_log.only]\nstatus = '5xx'", "access_log.only.status", "neither a status such as 404"),
        ("[access_log.only]\nstatus = '599-500'", "access_log.only.status", "nor a range such as 500-599"),
        ("[access_log.only]\nmin_duration = -1", "access_log.only.min_duration", ">= 0"),
        ("[access_log.only]\nslow = 1", "access_log.only.slow", "unknown key"),
    ],
)
def test_what_is_wrong_with_traces_and_logs_is_named(
    text: str, path: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "is_installed", lambda: True)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.path.startswith(path)
    assert reason in caught.value.reason


def test_spans_without_the_extra_are_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, OTEL)
    assert caught.value.path == "trace.otel"
    assert "pip install 'gateway[otel]'" in caught.value.reason
    assert load(tmp_path, "[trace]\nsample = 5").trace.sample == 5


def test_keys_of_a_collector_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "is_installed", lambda: True)
    loaded = load(tmp_path, OTEL + "headers = { X-Key = 's3cret' }")
    assert loaded.trace.otel is not None
    assert loaded.trace.otel.headers == {"X-Key": "s3cret"}
    assert "s3cret" not in "".join(config.diff(config.Config(), loaded))


def test_a_database_keeps_what_belongs_to_the_machine_in_var() -> None:
    file = config.check({"store": {"url": "sqlite:////srv/a/gateway.db"}})
    database = config.check({"store": {"url": "postgresql://gateway@db/gateway", "password_file": "pw"}})
    assert (file.store.folder, database.store.folder) == (Path("/srv/a"), Path("var"))


def test_a_password_of_digits_is_text() -> None:
    environ = {
        "GATEWAY__STORE__URL": "postgresql://gateway@db/gateway",
        "GATEWAY__STORE__PASSWORD": "0123456",
    }
    assert config.load(environ=environ).store.password == "0123456"


@pytest.mark.parametrize(
    ("store", "reason"),
    [
        ({"url": "mysql://u:s3cr3t@h/d"}, "store.url: what it says is neither"),
        ({"url": "postgresql://u:s3cr3t@[h/d"}, "store.url: is no url of a database"),
        ({"password": "s3cr3t"}, "store.password: is only for postgresql://"),
        ({"password_file": "s3cr3t"}, "store.password_file: is only for postgresql://"),
    ],
)
def test_a_store_that_cannot_be_meant_is_refused_without_its_password(
    store: dict[str, str], reason: str
) -> None:
    with pytest.raises(ConfigError) as failure:
        config.check({"store": store})
    assert str(failure.value).startswith(reason)
    assert "s3cr3t" not in str(failure.value)


def test_a_database_without_its_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'gateway\[pg\]'"):
        config.check({"store": {"url": "postgresql://gateway@db/gateway"}})
