"""Webhooks: signed, retried under one key; one veto is a veto."""

import asyncio
import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest
from msgspec import structs

from gateway.control.rollouts import webhooks
from gateway.control.rollouts.notices import message_of
from gateway.control.rollouts.webhooks import Answer, Message, Webhooks, body_of
from gateway.core.routing.service import WebhookSettings
from gateway.core.settings.targets import Listener, TargetRules
from gateway.store.records import EventRecord

MESSAGE = Message(
    key="d1:7",
    kind="deployment.step",
    service="auth",
    text="50 % on v1.1",
    at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    data={"percent": 50},
)


class Receiver:
    """An HTTP server that answers what it is told to, and keeps what came."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.heads: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.url = ""

    async def __aenter__(self) -> "Receiver":
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        self.heads.append(fields)
        self.bodies.append(await reader.readexactly(int(fields["content-length"])))
        status = self.statuses.pop(0)
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "BACKOFF_S", (0.0, 0.0))


async def test_notification_is_signed_and_retried_under_the_same_key() -> None:
    async with Receiver(500, 204) as receiver:
        hooks = Webhooks()
        hooks.notify([WebhookSettings(url=receiver.url, secret="s3cret")], MESSAGE)
        await hooks.close(grace_s=20)
    assert [head["idempotency-key"] for head in receiver.heads] == ["d1:7", "d1:7"]
    digest = hmac.new(b"s3cret", receiver.bodies[0], hashlib.sha256).hexdigest()
    assert receiver.heads[0]["x-gateway-signature"] == f"sha256={digest}"
    assert json.loads(receiver.bodies[0])["data"] == {"percent": 50}


async def test_hook_hears_only_the_kinds_it_names() -> None:
    async with Receiver(204) as receiver:
        hooks = Webhooks()
        hooks.notify([WebhookSettings(url=receiver.url, on=("deployment.completed",))], MESSAGE)
        hooks.notify([WebhookSettings(url=receiver.url, on=("deployment.step",))], MESSAGE)
        await hooks.close(grace_s=20)
    assert len(receiver.heads) == 1


async def test_nobody_asked_means_allowed() -> None:
    question = Message(key="k", kind="confirm-start", service="s", text="?", at=MESSAGE.at)
    assert await Webhooks().ask([WebhookSettings(url="http://127.0.0.1:1/")], question) == Answer(True)


async def test_one_veto_is_a_veto() -> None:
    question = Message(key="k", kind="confirm-start", service="s", text="?", at=MESSAGE.at)
    async with Receiver(200) as yes, Receiver(409) as no:
        asked = [WebhookSettings(url=url, on=("confirm-start",)) for url in (yes.url, no.url)]
        answer = await Webhooks().ask(asked, question)
    assert not answer.allowed
    assert "409" in answer.reason


@pytest.mark.parametrize(("policy", "allowed"), [("allow", True), ("veto", False)])
async def test_silence_means_what_the_owner_set(policy: str, *, allowed: bool) -> None:
    question = Message(key="k", kind="during-step", service="s", text="?", at=MESSAGE.at)
    hook = WebhookSettings(url="http://127.0.0.1:1/", on=("during-step",), on_timeout=policy)  # type: ignore[arg-type]
    answer = await Webhooks().ask([hook], question)
    assert answer.allowed is allowed
    assert ("did not answer" in answer.reason) is not allowed


def test_a_hook_is_told_which_of_several_gateways_has_decided() -> None:
    hook = WebhookSettings(url="http://127.0.0.1:1/")
    event = EventRecord(at=MESSAGE.at, kind="deployment.step", service="auth", deployment_id="d1", node="b")
    told = message_of(event)
    assert told is not None
    assert json.loads(body_of(hook, told))["node"] == "b"
    alone = message_of(structs.replace(event, node=None))
    assert alone is not None
    assert json.loads(body_of(hook, alone)).keys() == {"id", "kind", "service", "text", "at", "data"}


def test_slack_hook_gets_a_text() -> None:
    hook = WebhookSettings(url="http://127.0.0.1:1/", format="slack")
    assert json.loads(body_of(hook, MESSAGE)) == {"text": "[auth] 50 % on v1.1"}


async def test_hook_whose_name_leads_back_to_the_gateway_hears_nothing() -> None:
    """What a name leads to is known only once it is connected to, and is judged then."""
    async with Receiver(204) as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")
        own = Listener("127.0.0.1", int(url.rpartition(":")[2].removesuffix("/hook")))
        hook = WebhookSettings(url=url, on=("confirm-start",))
        question = structs.replace(MESSAGE, kind="confirm-start")
        answer = await Webhooks(TargetRules(own=lambda: [own])).ask([hook], question)
        assert not answer.allowed and "back to the gateway" in answer.reason
        assert not receiver.heads
