"""What of a setting is shown."""

from typing import Any

import msgspec
import pytest

from gateway.core.resilience.health import HealthSettings
from gateway.core.routing.service import FallbackSettings, RouteSettings, ServiceSettings, WebhookSettings
from gateway.core.settings.secrets import hidden, host_alone, stand_in
from gateway.core.settings.smoke import SmokeEndpoint, SmokeSettings

SETTINGS = ServiceSettings(
    routes=(RouteSettings(path="/a"),),
    fallback=FallbackSettings(status=503, body="Back soon…"),
    health=HealthSettings(path="/health", headers={"Authorization": "Bearer hunter2"}),
    smoke_tests=SmokeSettings(
        endpoints=(SmokeEndpoint(path="/login", headers={"X-Key": "hunter2"}, body={"password": "hunter2"}),)
    ),
    webhooks=(
        WebhookSettings(url="https://hooks.slack.com/services/T0/B0/hunter2", secret="hunter2"),
        WebhookSettings(url="https://hooks.example", on=("deployment.paused",)),
    ),
)


def test_secrets_are_hidden_and_everything_else_is_shown() -> None:
    raw = msgspec.json.decode(msgspec.json.encode(SETTINGS))
    shown = hidden(raw)
    assert "hunter2" in str(raw)
    assert "hunter2" not in str(shown)
    assert shown["health"]["headers"] == {"Authorization": "***"}
    (test,) = shown["smokeTests"]["endpoints"]
    assert (test["path"], test["headers"], test["body"]) == ("/login", {"X-Key": "***"}, "***")
    slack, other = shown["webhooks"]
    assert (slack["url"], slack["secret"]) == ("https://hooks.slack.com/***", "***")
    assert (other["url"], other["secret"], other["on"]) == (
        "https://hooks.example",
        None,
        ["deployment.paused"],
    )
    untouched = ("routes", "fallback", "breaker", "retry", "timeouts", "tls")
    assert {name: shown[name] for name in untouched} == {name: raw[name] for name in untouched}
    assert msgspec.convert(shown, ServiceSettings).webhooks[0].url == "https://hooks.slack.com/***"


def test_what_stands_for_a_secret_is_found_where_it_came_back_and_nowhere_else() -> None:
    raw = msgspec.json.decode(msgspec.json.encode(SETTINGS))
    assert stand_in(raw) == ""
    assert stand_in(hidden(raw)) == "/health/headers/Authorization"
    for name, at in (("smokeTests", "/endpoints/0"), ("webhooks", "/0")):
        assert stand_in({name: hidden(raw)[name]}).startswith(f"/{name}{at}/")
        assert stand_in({name: hidden(raw)[name] if name == "webhooks" else raw[name]}) == (
            "/webhooks/0/secret" if name == "webhooks" else ""
        )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://127.0.0.1:1/", "http://127.0.0.1:1/"),
        ("http://127.0.0.1:1/x", "http://127.0.0.1:1/***"),
        ("https://h?token=x", "https://h/***"),
        ("https://user:key@h/x", "https://h/***"),
        ("http://[::1", "***"),
    ],
)
def test_of_a_webhook_only_its_host_is_shown(url: str, shown: str) -> None:
    assert host_alone(url) == shown


def test_query_of_a_shutdown_url_is_hidden_under_both_its_names() -> None:
    for name in ("shutdown_url", "shutdownUrl"):
        assert hidden({name: "http://h/stop?key=1"}) == {name: "http://h/stop?***"}
        assert hidden({name: "http://h/stop"}) == {name: "http://h/stop"}
        assert hidden({name: None}) == {name: None}


@pytest.mark.parametrize(
    "patch",
    [{"webhooks": 1}, {"webhooks": ["x"]}, {"webhooks": [{"url": 1}]}, {"headers": []}, [], None, "x"],
)
def test_a_malformed_patch_is_shown_as_it_is(patch: Any) -> None:
    assert hidden(patch) == patch
    assert stand_in(patch) == ""


def test_secrets_of_testers_are_hidden_though_they_are_names() -> None:
    settings = {"testers": {"cookie": "release", "values": {"hunter2": "v1", "hunter3": "@new"}}}
    shown = hidden(settings)
    assert shown == {"testers": {"cookie": "release", "values": {"1***": "v1", "2***": "@new"}}}
    assert stand_in(settings) == ""
    assert stand_in(shown) == "/testers/values"
    assert hidden({"testers": None}) == {"testers": None}
    assert msgspec.convert(shown, ServiceSettings).testers is not None, "what is shown has its shape"
