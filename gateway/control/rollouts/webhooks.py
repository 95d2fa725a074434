"""Webhooks: tell others what a rollout does, and ask those who may say no.

A notification is signed, sent until it is taken (a 2xx) or its tries are used up, always under the same
idempotency key. A question is asked once within its timeout; what silence means is its owner's setting.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import msgspec

from gateway.core.routing.service import WebhookSettings
from gateway.core.settings.secrets import host_alone
from gateway.core.settings.targets import ANYWHERE, TargetRules
from gateway.errors import GatewayError
from gateway.http1.fetch import fetch
from gateway.log import get_logger

log = get_logger(component="webhooks")

QUESTIONS: Final = ("confirm-start", "during-step", "confirm-promote", "on-rollback")
BACKOFF_S: Final = (0.5, 2.0, 8.0, 30.0, 120.0)
"""Waits between the six tries of a notification: about three minutes in all."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, or what is asked. key: the same for every try."""

    key: str
    kind: str
    service: str
    text: str
    """One sentence for people."""
    at: datetime
    data: dict[str, Any] = {}
    node: str | None = None
    """Which of the gateways that share the store has decided it, or asks; None: nobody shares it."""


class Answer(msgspec.Struct, frozen=True):
    """What those who were asked said together: one veto is a veto."""

    allowed: bool
    reason: str = ""


class Webhooks:
    """Sends messages from its own tasks; nobody waits for a notification."""

    def __init__(self, rules: TargetRules = ANYWHERE) -> None:
        self._rules = rules
        self._tasks: set[asyncio.Task[None]] = set()

    def notify(self, hooks: Iterable[WebhookSettings], message: Message) -> list[asyncio.Task[None]]:
        """Send `message` to every hook that wants its kind, soon. Returns what ends once that is done."""
        loop = asyncio.get_running_loop()
        begun = []
        for hook in hooks:
            if message.kind in hook.on or (not hook.on and message.kind not in QUESTIONS):
                task = loop.create_task(self._deliver(hook, message), name=f"webhook {message.kind}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                begun.append(task)
        return begun

    async def ask(self, hooks: Iterable[WebhookSettings], message: Message) -> Answer:
        """Ask every hook that has `message.kind` in its `on`, all at once. No such hook: allowed."""
        asked = [hook for hook in hooks if message.kind in hook.on]
        answers = await asyncio.gather(*(self._ask_one(hook, message) for hook in asked))
        return next((answer for answer in answers if not answer.allowed), Answer(True))

    async def close(self, grace_s: float = 2.0) -> None:
        """Give what is under way `grace_s`, then give up."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, hook: WebhookSettings, message: Message) -> None:
        error = ""
        for wait_s in (0.0, *BACKOFF_S):
            await asyncio.sleep(wait_s)
            try:
                status = await self._post(hook, message)
            except GatewayError as exc:
                error = str(exc)
                continue
            if 200 <= status < 300:
                return
            error = f"answered {status}"
        log.warning(
            "webhook_given_up",
            service=message.service,
            url=host_alone(hook.url),
            kind=message.kind,
            key=message.key,
            error=error,
        )

    async def _ask_one(self, hook: WebhookSettings, message: Message) -> Answer:
        try:
            status = await self._post(hook, message)
        except GatewayError as exc:
            return Answer(
                hook.on_timeout == "allow", f"{host_alone(hook.url)} did not answer {message.kind}: {exc}"
            )
        if 200 <= status < 300:
            return Answer(True)
        return Answer(False, f"{host_alone(hook.url)} said no to {message.kind}: {status}")

    async def _post(self, hook: WebhookSettings, message: Message) -> int:
        body = body_of(hook, message)
        fields = [
            ("Content-Type", "application/json"),
            ("Idempotency-Key", message.key),
            ("X-Gateway-Event", message.kind),
        ]
        if hook.secret is not None:
            fields.append(("X-Gateway-Signature", signature(hook.secret, body)))
        answer = await fetch(
            hook.url,
            method="POST",
            fields=fields,
            body=body,
            timeout_s=hook.timeout / 1000,
            max_bytes=4096,
            may_reach=partial(self._rules.check, hook.url),
        )
        return answer.status


def signature(secret: str, body: bytes) -> str:
    """Return `sha256=HEX`: the HMAC-SHA256 of the body under the hook's secret (RFC 2104)."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def body_of(hook: WebhookSettings, message: Message) -> bytes:
    """Return the JSON to send: the whole message, or the shape Slack's incoming webhooks take."""
    if hook.format == "slack":
        return msgspec.json.encode({"text": f"[{message.service}] {message.text}"})
    body: dict[str, Any] = {
        "id": message.key,
        "kind": message.kind,
        "service": message.service,
        "text": message.text,
        "at": message.at.astimezone(UTC),
        "data": message.data,
    }
    if message.node is not None:
        body["node"] = message.node
    return msgspec.json.encode(body)
