"""What moves all traffic waits for a second person: whatever the call, and whatever the first one tries."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from gateway.actions import second_person
from gateway.actions.second_person import Approvals
from gateway.actions.tokens import record_of
from gateway.admin.auth import Authenticator
from gateway.admin.call import BASE
from gateway.admin.openapi import MATCHED
from gateway.admin.routes import ROUTES
from gateway.admin.server import AdminServer
from gateway.http1.app import Request
from gateway.store.records import Role
from tests.unit.admin.bench import nothing_waits
from tests.unit.control.console import Console


class Office:
    """The real actions behind the real listener, and people with tokens."""

    def __init__(self, made: Console) -> None:
        self.made = made
        self.auth = Authenticator(made.store, utc=lambda: made.time)
        parts: dict[str, Any] = {
            "actions": made.actions,
            "auth": self.auth,
            "store": made.store,
            "catalog": made.catalog,
            "tally": made.tally,
            "hub": SimpleNamespace(apply_us={}, workers=list, sent=nothing_waits),
            "state": SimpleNamespace(restarts={}, unready=lambda: None, certificate_expiries=dict),
            "watch": SimpleNamespace(problem="", audit=SimpleNamespace(ok=True, reason="")),
            "limits": SimpleNamespace(starts_per_minute=1000, changes_per_minute=1000),
        }
        self.server = AdminServer(**parts)

    async def hire(self, name: str, role: Role = "deployer", **more: Any) -> None:
        """Give somebody a token: `gw_NAME`."""
        record = record_of(
            f"gw_{name}", name=name, role=role, now=self.made.now(), **{"created_by": "boss"} | more
        )
        async with self.made.store.transaction() as tx:
            tx.put_token(record)
        self.auth.learn(record)

    async def ask(
        self, name: str, method: str, path: str, body: Any = None, **fields: str
    ) -> tuple[int, Any]:
        """Return status and body of a call under the base."""
        named = {key.replace("_", "-"): value for key, value in fields.items()}
        named["authorization"] = f"Bearer gw_{name}"
        raw = msgspec.json.encode(body) if body is not None else b""
        response = await self.server.handle(Request(method, f"{BASE}/{path}", "", named, raw, "127.0.0.1"))
        assert isinstance(response.body, bytes)
        return response.status, msgspec.json.decode(response.body) if response.body else None

    async def kept(self, name: str, method: str, path: str, body: Any = None, **fields: str) -> str:
        """Make a call that has to wait; return the approval's id."""
        status, answer = await self.ask(name, method, path, body, **fields)
        assert (status, answer["state"]) == (202, "pending"), answer
        assert answer["approvalId"] == answer["id"]
        assert answer["next"] == f"gateway approve {answer['id']}"
        return str(answer["id"])


@asynccontextmanager
async def office(path: Path) -> AsyncIterator[Office]:
    made = Console(path)
    made.second_person = True
    await made.open()
    try:
        staffed = Office(made)
        for name in ("ann", "bob"):
            await staffed.hire(name)
        yield staffed
    finally:
        await made.close()


WATCHED: dict[str, Any] = {"steps": [10, 50, 100]}
UNWATCHED: tuple[dict[str, Any], ...] = (
    {"strategy": "immediate"},
    {"strategy": "blue-green"},
    {"config": {"steps": [100]}},
    {"steps": [100]},
    {"config": {"dryRun": True}},
    {"config": {"minRequests": 0}},
    {"config": {"stepInterval": 1}},
    {"config": {"stepInterval": [60000, 1, 60000]}},
    {"config": {"errorThreshold": 99}},
    {"config": {"errors": ["connect"]}},
)


def start(**more: Any) -> dict[str, Any]:
    return {"serviceName": "auth", "toVersion": "v2"} | more


async def test_a_start_that_nobody_watches_waits_and_a_canary_does_not(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.made.two_versions()
        for each in UNWATCHED:
            await at.kept("ann", "POST", "deployment/start", start(**each))
        assert at.made.rollouts.open_for("auth") is None
        status, _ = await at.ask("ann", "POST", "deployment/start", start(config=WATCHED))
        assert status == 201


async def test_a_start_right_after_the_first_version_waits_for_its_probe_too(tmp_path: Path) -> None:
    """Guards a refusal: nothing was current yet, and nobody had looked."""
    async with office(tmp_path) as at:
        old, new = await at.made.register("v1"), await at.made.register("v2")

        async def found(version_id: str) -> None:
            await at.made.pass_probe(old.id)
            service = at.made.catalog.services["auth"].record
            at.made.catalog.put_service(msgspec.structs.replace(service, current_version_id=old.id))

        at.made.checks.before_probe = found
        await at.kept("ann", "POST", "deployment/start", start(strategy="immediate"))
        assert at.made.checks.probed == [old.id], new.id


async def test_whatever_sets_a_share_waits_and_what_returns_it_never(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.made.two_versions()
        _, rollout = await at.ask("ann", "POST", "deployment/start", start(config=WATCHED))
        await at.made.settle()
        one = f"deployment/{rollout['id']}"
        await at.kept("ann", "PUT", f"{one}/traffic", {"percent": 30})
        await at.kept("ann", "POST", f"{one}/promote", {"full": True})
        assert (await at.ask("ann", "POST", f"{one}/promote"))[0] == 200, "to 50 %"
        await at.made.settle()
        await at.kept("ann", "POST", f"{one}/promote", {})
        assert (await at.ask("ann", "POST", f"{one}/pause"))[0] == 200
        assert (await at.ask("ann", "POST", f"{one}/resume"))[0] == 200, "the share stays"
        assert at.made.weights() == {"v1": 50, "v2": 50}
        assert (await at.ask("ann", "POST", f"{one}/rollback"))[0] == 200
        await at.made.settle()
        assert at.made.weights() == {"v1": 100, "v2": 0}


async def test_undo_waits_once_the_release_is_over_and_not_before(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.made.two_versions()
        await released(at)
        await at.kept("ann", "POST", "services/auth/undo")
        third = await at.made.register("v3")
        await at.made.pass_probe(third.id)
        await at.ask("ann", "POST", "deployment/start", start(toVersion="v3", config=WATCHED))
        await at.made.settle()
        assert (await at.ask("ann", "POST", "services/auth/undo"))[0] == 200, "a roll back"


async def released(at: Office) -> None:
    """Bring v2 to all traffic, by two persons, to the end."""
    body = start(strategy="immediate", config={"bakeTime": 0})
    approval = await at.kept("ann", "POST", "deployment/start", body)
    status, done = await at.ask("bob", "POST", f"approvals/{approval}")
    assert (status, done["state"], done["status"]) == (200, "carried_out", 201)
    await at.made.settle()
    await at.ask("ann", "POST", f"deployment/{done['answer']['id']}/complete")
    await at.made.settle()


async def test_weights_urls_and_drains_of_what_has_traffic_wait(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.hire("root", "admin")
        old, new = await at.made.two_versions()
        versions = "deployment/versions"
        await at.kept("ann", "PATCH", f"{versions}/{new}", {"weight": 100})
        await at.kept("ann", "PATCH", f"{versions}/{old}", {"url": "http://127.0.0.1:999"})
        await at.kept("ann", "PATCH", f"{versions}/{old}", {"replicas": ["http://127.0.0.1:999"]})
        body = {"serviceName": "auth", "version": "v3", "url": "http://127.0.0.1:999", "weight": 100}
        await at.kept("ann", "POST", versions, body)
        await at.kept("root", "DELETE", "services/auth")
        assert (await at.ask("ann", "PATCH", f"{versions}/{new}", {"url": "http://127.0.0.1:998"}))[0] == 200
        both = await at.kept("ann", "PATCH", f"{versions}/{old}", {"weight": 50})
        await at.made.pass_probe(new)
        assert (await at.ask("bob", "POST", f"approvals/{both}"))[0] == 200
        more = await at.kept("ann", "PATCH", f"{versions}/{new}", {"weight": 50})
        assert (await at.ask("bob", "POST", f"approvals/{more}"))[0] == 200
        await at.kept("ann", "POST", f"{versions}/{old}/drain", {})
        assert at.made.weights() == {"v1": 50, "v2": 50}


async def test_what_would_be_refused_is_refused_at_once(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.made.two_versions()
        await at.hire("oli", "operator")
        call = ("POST", "deployment/start")
        assert (await at.ask("ann", *call, start(strategy="immediate", toVersion="v9")))[0] == 404
        assert (await at.ask("ann", *call, start(config={"steps": [100, 5]})))[0] == 422
        assert (await at.ask("oli", *call, start(strategy="immediate")))[0] == 403
        assert (await at.ask("ann", "POST", "services/auth/undo"))[0] == 409
        assert (await at.ask("ann", "GET", "approvals"))[1]["items"] == []


async def test_only_a_second_person_confirms(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.made.two_versions()
        approval = await at.kept("ann", "POST", "deployment/start", start(strategy="immediate"))
        await at.hire("ann-ci", owner="ann")
        await at.hire("minted", created_by="ann")
        await at.hire("oli", "operator")
        await at.hire("eve", services="basket")
        for name in ("ann", "ann-ci", "minted", "oli", "eve"):
            status, problem = await at.ask(name, "POST", f"approvals/{approval}")
            assert status == 403, (name, problem)
        assert at.made.rollouts.open_for("auth") is None
        assert (await at.ask("bob", "POST", f"approvals/{approval}"))[0] == 200
        assert at.made.rollouts.open_for("auth") is not None
        assert (await at.ask("bob", "POST", "approvals/none"))[0] == 404


async def test_a_call_is_carried_out_once_however_many_confirm_it(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.hire("cid")
        _, new = await at.made.two_versions()
        approval = await at.kept("ann", "PATCH", f"deployment/versions/{new}", {"weight": 20})
        answers = await asyncio.gather(
            *(at.ask(name, "POST", f"approvals/{approval}") for name in ("bob", "cid", "bob"))
        )
        assert sorted(status for status, _ in answers) == [200, 409, 409]
        assert (await at.ask("bob", "POST", f"approvals/{approval}"))[0] == 409
        changes = [row for row in await at.made.audit() if row.action == "version.patch" and row.allowed]
        assert len(changes) == 1


async def test_the_same_call_asked_again_is_the_same_approval(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.made.two_versions()
        body = start(strategy="immediate")
        first = await at.kept("ann", "POST", "deployment/start", body, idempotency_key="k")
        assert await at.kept("ann", "POST", "deployment/start", body, idempotency_key="k") == first
        assert await at.kept("bob", "POST", "deployment/start", body, idempotency_key="k") != first
        status, done = await at.ask("bob", "POST", f"approvals/{first}")
        assert status == 200
        again, rollout = await at.ask("ann", "POST", "deployment/start", body, idempotency_key="k")
        assert (again, rollout["id"]) == (201, done["answer"]["id"]), "the key has opened it already"
        other = start(strategy="immediate", config={"bakeTime": 1})
        assert (await at.ask("ann", "POST", "deployment/start", other, idempotency_key="k"))[0] == 422


async def test_the_audit_names_both_and_the_call_keeps_its_asker(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        _, new = await at.made.two_versions()
        approval = await at.kept("ann", "PATCH", f"deployment/versions/{new}", {"weight": 20})
        await at.ask("bob", "POST", f"approvals/{approval}")
        rows = {row.action: row for row in await at.made.audit()}
        assert rows["approval.ask"].actor == "ann"
        assert (rows["approval.confirm"].actor, rows["approval.confirm"].details["askedBy"]) == ("bob", "ann")
        change = rows["version.patch"]
        assert (change.actor, change.details["approvedBy"], change.details["approval"]) == (
            "ann",
            "bob",
            approval,
        )


async def test_who_asked_must_still_be_allowed(tmp_path: Path) -> None:
    """Between asking and confirming a token may be revoked, or its service be gone."""
    async with office(tmp_path) as at:
        _, new = await at.made.two_versions()
        approval = await at.kept("ann", "PATCH", f"deployment/versions/{new}", {"weight": 20})
        [ann] = [each for each in await at.made.store.tokens() if each.name == "ann"]
        for changed in ({"role": "viewer"}, {"services": "basket"}, {"revoked_at": at.made.now()}):
            async with at.made.store.transaction() as tx:
                tx.put_token(msgspec.structs.replace(ann, **changed))
            status, _ = await at.ask("bob", "POST", f"approvals/{approval}")
            assert status in (403, 409), changed
            if status == 403:  # found out when it was carried out: it has to be asked for again
                approval = await asked_again(at, ann, new)
        assert at.made.weights() == {"v1": 100, "v2": 0}


async def asked_again(at: Office, ann: Any, new: str) -> str:
    async with at.made.store.transaction() as tx:
        tx.put_token(ann)
    return await at.kept("ann", "PATCH", f"deployment/versions/{new}", {"weight": 20})


async def test_what_has_changed_since_is_refused_when_it_is_confirmed(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.made.two_versions()
        approval = await at.kept("ann", "POST", "deployment/start", start(strategy="immediate"))
        await at.ask("bob", "POST", "deployment/start", start(config=WATCHED))
        status, problem = await at.ask("bob", "POST", f"approvals/{approval}")
        assert (status, "open already" in problem["detail"]) == (409, True)
        _, shown = await at.ask("ann", "GET", f"approvals/{approval}")
        assert (shown["state"], shown["status"], shown["decidedBy"]) == ("failed", 409, "bob")
        assert (await at.ask("bob", "POST", f"approvals/{approval}"))[0] == 409


async def test_if_match_holds_until_it_is_confirmed(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        _, new = await at.made.two_versions()
        path = f"deployment/versions/{new}"
        status, _ = await at.ask("ann", "PATCH", path, {"weight": 20}, if_match='"0.1"')
        assert status == 412, "what has changed already is not worth anybody's while"
        tag = await tag_of(at, path)
        approval = await at.kept("ann", "PATCH", path, {"weight": 20}, if_match=tag)
        await at.ask("ann", "PATCH", path, {"shutdownUrl": "http://127.0.0.1:999/stop"})
        assert (await at.ask("bob", "POST", f"approvals/{approval}"))[0] == 412


async def tag_of(at: Office, path: str) -> str:
    fields = {"authorization": "Bearer gw_ann"}
    response = await at.server.handle(Request("GET", f"{BASE}/{path}", "", fields, b"", "127.0.0.1"))
    return dict(response.fields)["ETag"]


async def test_it_waits_a_quarter_of_an_hour_over_a_restart(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        _, new = await at.made.two_versions()
        path = f"deployment/versions/{new}"
        first = await at.kept("ann", "PATCH", path, {"weight": 20})
        now = at.made.time
    made = Console(tmp_path)
    made.second_person, made.time = True, now + timedelta(minutes=14)
    await made.open()
    at = Office(made)
    second = await at.kept("ann", "PATCH", path, {"weight": 30})
    assert (await at.ask("bob", "POST", f"approvals/{first}"))[0] == 200
    made.time += timedelta(minutes=16)
    status, problem = await at.ask("bob", "POST", f"approvals/{second}")
    assert (status, "ask again" in problem["detail"]) == (409, True)
    assert (await at.ask("ann", "GET", f"approvals/{second}"))[1]["state"] == "expired"
    await made.close()


async def test_anybody_concerned_may_say_no(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.hire("oli", "operator")
        _, new = await at.made.two_versions()
        path = f"deployment/versions/{new}"
        for name in ("ann", "bob"):
            approval = await at.kept("ann", "PATCH", path, {"weight": 20})
            assert (await at.ask("oli", "DELETE", f"approvals/{approval}"))[0] == 403
            assert (await at.ask(name, "DELETE", f"approvals/{approval}"))[0] == 200
            assert (await at.ask("bob", "POST", f"approvals/{approval}"))[0] == 409


async def test_one_token_does_not_fill_the_list(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        _, new = await at.made.two_versions()
        statuses = [
            (await at.ask("ann", "PATCH", f"deployment/versions/{new}", {"weight": weight}))[0]
            for weight in range(1, 23)
        ]
        assert statuses == [202] * 20 + [429] * 2


async def test_if_match_is_looked_at_wherever_the_document_says_so(tmp_path: Path) -> None:
    """Other calls had it in their description, and did not look at it."""
    made = Console(tmp_path)
    await made.open()
    at = Office(made)
    await at.hire("root", "admin")
    _, new = await made.two_versions()
    await made.service("own")
    _, rollout = await at.ask("root", "POST", "deployment/start", start(config=WATCHED))
    await made.settle()
    bodies = {"deployment.traffic": {"percent": 30}}
    places = {"deployment": rollout["id"], "version": new, "service": "own"}
    for route in ROUTES:
        if route.action in MATCHED:
            place = places[route.action.partition(".")[0]]
            path = route.path.replace("{id}", place).replace("{name}", place)
            status, _ = await at.ask(
                "root", route.method, path, bodies.get(route.action, {}), if_match='"0.1"'
            )
            assert status == 412, route.action
    await made.close()


class Killed(BaseException):
    """What control dies of."""


async def interrupted(at: Office, monkeypatch: pytest.MonkeyPatch, where: str) -> str:
    """Let control die while it carries a confirmed call out; return the approval's id."""
    _, new = await at.made.two_versions()
    approval = await at.kept("ann", "PATCH", f"deployment/versions/{new}", {"weight": 20})

    async def dies(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if where == "before":
            patch.setattr(at.server, "_perform", dies)
        else:
            patch.setattr(at.made.actions.approvals, "finish", dies)
        await at.ask("bob", "POST", f"approvals/{approval}")
    return approval


@pytest.mark.parametrize(
    ("where", "state", "says"),
    [("before", "failed", "nothing was changed: ask again"), ("after", "carried_out", "")],
)
async def test_what_a_control_that_ended_was_carrying_out_is_known_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, state: str, says: str
) -> None:
    """It stayed `approved` for ever, and was never done, or done without a word."""
    async with office(tmp_path) as at:
        approval = await interrupted(at, monkeypatch, where)
        _, shown = await at.ask("ann", "GET", f"approvals/{approval}")
        assert shown["state"] == "approved"
        await Approvals(at.made.actions.approvals._access).recover()
        _, shown = await at.ask("ann", "GET", f"approvals/{approval}")
        assert (shown["state"], shown["decidedBy"]) == (state, "bob")
        assert says in shown["outcome"]
        assert at.made.weights() == ({"v1": 100, "v2": 0} if where == "before" else {"v1": 100, "v2": 20})
        assert [event.kind for event in await at.made.store.newest_events()][-1] == f"approval.{state}"


async def test_whoever_confirms_again_hears_what_became_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office(tmp_path) as at:
        approval = await interrupted(at, monkeypatch, "before")
        status, problem = await at.ask("bob", "POST", f"approvals/{approval}")
        assert (status, "nothing was changed: ask again" in problem["detail"]) == (409, True)
        [version] = [each for each in await at.made.store.load_versions() if each.version == "v2"]
        again = await at.kept("ann", "PATCH", f"deployment/versions/{version.id}", {"weight": 20})
        assert (await at.ask("bob", "POST", f"approvals/{again}"))[0] == 200
        assert at.made.weights()["v2"] == 20


async def test_what_another_gateway_carries_out_is_left_to_it_for_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever confirmed it too, or took over, called it failed while it was being carried out."""
    async with office(tmp_path) as at:
        approval = await interrupted(at, monkeypatch, "before")  # for all that anybody else knows, it goes on
        monkeypatch.setattr(at.made.store, "is_shared", True)
        at.made.actions.approvals = other = Approvals(at.made.actions.approvals._access)
        await at.hire("cid")
        await other.recover()
        status, problem = await at.ask("cid", "POST", f"approvals/{approval}")
        assert (status, problem["detail"]) == (409, "bob has confirmed it, and it is being carried out")
        assert (await at.ask("ann", "GET", f"approvals/{approval}"))[1]["state"] == "approved"
        at.made.time += second_person.CARRYING
        await other.recover()
        _, shown = await at.ask("ann", "GET", f"approvals/{approval}")
        assert (shown["state"], shown["outcome"]) == ("failed", second_person.INTERRUPTED)


async def test_what_another_gateway_left_is_found_out_without_anybody_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office(tmp_path) as at:
        approval = await interrupted(at, monkeypatch, "before")
        monkeypatch.setattr(at.made.store, "is_shared", True)
        monkeypatch.setattr(second_person, "CARRYING", timedelta(0))
        running = asyncio.ensure_future(Approvals(at.made.actions.approvals._access).run())
        async with asyncio.timeout(30):
            while (await at.ask("ann", "GET", f"approvals/{approval}"))[1]["state"] == "approved":
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
