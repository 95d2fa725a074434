"""The command line against a running gateway, from the first version to an undo."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.cli.client import AdminClient
from gateway.cli.exits import ApiError
from gateway.http1.fetch import fetch
from tests.integration.admin.gateway_process import DEADLINE_S, ROOT, Gateway, running, sample


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def gateway_command(gateway: Gateway, *arguments: str, token: str | None = None) -> Said:
    """Run `gateway …` as a user would who knows the configuration, or has a token."""
    command = [sys.executable, "-m", "gateway", *arguments, "--config", str(gateway.folder / "gateway.toml")]
    command += ["--token", token] if token else []
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False
    )
    return Said(done.returncode, done.stdout, done.stderr)


QUICK = ("--steps", "50,100", "--step-interval", "1s", "--min-requests", "0", "--no-auto-pause")


async def test_a_release_from_the_first_version_to_undo(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(tmp_path))
        old = await stack.enter_async_context(sample("v1.0"))
        new = await stack.enter_async_context(sample("v1.1"))

        first = await gateway_command(
            gateway, "deploy", "auth", "v1.0", "--url", old, "--route", "/", "--wait"
        )
        assert first.code == 0, first
        assert first.err.startswith(f"registered auth v1.0 at {old}\n")
        assert first.out == f"auth v1.0 takes all the traffic\nlive at http://{gateway.listen}/\n"
        assert await who_answers(gateway) == "v1.0", "what it calls live is live"

        second = await gateway_command(gateway, "deploy", "auth", "v1.1", "--url", new, *QUICK, "--wait")
        assert second.code == 0, second
        assert second.out.startswith("completed v1.0 → v1.1 (canary)")
        drain = await asyncio.to_thread(state_of_drain, gateway.api, "v1.0")
        assert drain["safeToStop"]

        tree = (await gateway_command(gateway, "get", "auth", "-o", "json")).json
        weights = {version["version"]: version["weight"] for version in tree["versions"]}
        assert weights == {"v1.0": 0, "v1.1": 100}

        undone = await gateway_command(gateway, "undo", "auth", "--reason", "change of mind", "-o", "json")
        assert undone.code == 0, undone
        assert undone.json["toVersion"] == "v1.0"
        async with asyncio.timeout(DEADLINE_S):
            while await who_answers(gateway) != "v1.0":
                await asyncio.sleep(0.05)

        kinds = [json.loads(line)["kind"] for line in (await events(gateway)).splitlines()]
        assert kinds[0] == "service.created"
        assert "deployment.completed" in kinds
        audit = (await gateway_command(gateway, "audit", "-o", "json")).json
        assert {"version.create", "deployment.start", "service.undo"} <= {row["action"] for row in audit}
        assert all(row["allowed"] for row in audit)


async def who_answers(gateway: Gateway) -> str:
    host, port = gateway.listen.split(":")
    answer = await fetch(f"http://{host}:{port}", path="/", timeout_s=10.0)
    return str(json.loads(answer.body)["version"])


async def events(gateway: Gateway) -> str:
    return (await gateway_command(gateway, "events", "auth", "-o", "json")).out


def state_of_drain(api: AdminClient, version: str) -> Any:
    [found] = [item for item in api.items("deployment/versions") if item["version"] == version]
    return api.get(f"deployment/versions/{found['id']}/drain")


async def test_a_release_that_fails_its_tests_moves_nothing(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(tmp_path))
        old = await stack.enter_async_context(sample("v1.0"))
        bad = await stack.enter_async_context(sample("v1.1", "--unhealthy"))
        await gateway_command(gateway, "deploy", "auth", "v1.0", "--url", old, "--route", "/", "--wait")
        said = await gateway_command(
            gateway, "deploy", "auth", "v1.1", "--url", bad, "--deploy-timeout", "2s"
        )
        assert (said.code, said.out) == (1, "")
        assert "gateway: auth v1.1 is not healthy after 2s: status 503" in said.err
        tree = (await gateway_command(gateway, "get", "auth", "-o", "json")).json
        assert (tree["deployment"], tree["last"]) == (None, None)
        shares = {version["version"]: version["share"] for version in tree["versions"]}
        assert shares == {"v1.0": 100.0, "v1.1": 0.0}


async def test_a_dead_url_is_an_error_and_the_same_line_with_another_goes_live(tmp_path: Path) -> None:
    """A first version used to be called live, with exit code 0, while clients got 503."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(tmp_path))
        url = await stack.enter_async_context(sample("v1.0"))
        line = ("deploy", "auth", "v1.0", "--route", "/", "--url")
        dead = await gateway_command(gateway, *line, "http://127.0.0.1:1", "--deploy-timeout", "2s")
        assert (dead.code, dead.out) == (1, "")
        assert "cannot connect to 127.0.0.1:1" in dead.err
        assert "Traceback" not in dead.err
        for _ in range(2):
            live = await gateway_command(gateway, *line, url)
            assert live.code == 0, live
            assert live.out.startswith("auth v1.0 takes all the traffic\n")
            assert await who_answers(gateway) == "v1.0"


async def test_what_was_mistyped_can_be_forgotten(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(tmp_path))
        url = await stack.enter_async_context(sample("v1.0"))
        await gateway_command(gateway, "deploy", "auth", "v1.0", "--url", url, "--route", "/")
        line = ("deploy", "auth", "v1.1", "--url", "http://127.0.0.1:1", "--deploy-timeout", "0")
        assert (await gateway_command(gateway, *line)).code == 1
        assert (await gateway_command(gateway, "rm", "auth", "v1.0")).code == 1, "it serves"
        gone = await gateway_command(gateway, "rm", "auth", "v1.1")
        assert (gone.code, gone.out) == (0, "auth v1.1 is forgotten\n"), gone
        assert (await gateway_command(gateway, "edit", "auth", "--set", "health.path=/api/health")).code == 0
        assert (await gateway_command(gateway, "rm", "auth")).code == 0
        assert (await gateway_command(gateway, "get")).out.count("\n") == 1


async def test_a_file_is_planned_applied_and_exported(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(tmp_path))
        old, new = [await stack.enter_async_context(sample(version)) for version in ("v1.0", "v1.1")]
        file = tmp_path / "services.toml"
        text = f"""
[[service]]
name = "auth"
routes = [{{ path = "/" }}]
[[service.version]]
version = "v1.0"
url = "{old}"
weight = 100
"""
        file.write_text(text)
        assert (await gateway_command(gateway, "plan", "-f", str(file))).code == 3
        applied = await gateway_command(gateway, "apply", "-f", str(file))
        assert applied.code == 0, applied
        assert (await gateway_command(gateway, "plan", "-f", str(file))).code == 0
        assert (await gateway_command(gateway, "deploy", "auth", "v1.0")).code == 0

        file.write_text(f'{text}[[service.version]]\nversion = "v1.1"\nurl = "{new}"\nweight = 100\n')
        applied = await gateway_command(gateway, "apply", "-f", str(file))
        assert applied.out.endswith("next: gateway deploy auth v1.1\n"), applied
        tree = (await gateway_command(gateway, "get", "auth", "-o", "json")).json
        weights = {version["version"]: version["weight"] for version in tree["versions"]}
        assert weights == {"v1.0": 100, "v1.1": 0}, "a file moves no traffic"

        exported = tmp_path / "exported.toml"
        exported.write_text((await gateway_command(gateway, "export")).out)
        assert (await gateway_command(gateway, "plan", "-f", str(exported))).code == 0
        wrong = tmp_path / "wrong.toml"
        wrong.write_text(text.replace("routes", "rutes"))
        refused = await gateway_command(gateway, "apply", "-f", str(wrong))
        assert refused.code == 2
        assert "service[0].rutes: unknown key" in refused.err


async def test_events_are_the_newest_of_their_service(tmp_path: Path) -> None:
    """`-n` used to count the events of all services."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(tmp_path))
        url = await stack.enter_async_context(sample("v1.0"))
        for service in ("auth", "basket"):
            await gateway_command(gateway, "deploy", service, "v1.0", "--url", url, "--route", f"/{service}")
        said = await gateway_command(gateway, "events", "auth", "-n", "2", "-o", "json")
        assert [json.loads(line)["service"] for line in said.out.splitlines()] == ["auth", "auth"]


async def test_roles_are_kept_and_refusals_are_audited(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        token = (await gateway_command(gateway, "token", "create", "looker", "--role", "viewer")).out.strip()
        assert token.startswith("gw_")
        assert (await gateway_command(gateway, "versions", token=token)).code == 0
        denied = await gateway_command(gateway, "freeze", "on", token=token)
        assert denied.code == 4
        assert denied.err.startswith("gateway: freeze.put needs the role admin; looker is viewer: ")
        audit = (await gateway_command(gateway, "audit", "--actor", "looker", "-o", "json")).json
        assert [(row["action"], row["allowed"]) for row in audit] == [("freeze.put", False)]
        assert (await gateway_command(gateway, "token", "revoke", "looker")).code == 0
        assert (await gateway_command(gateway, "versions", token=token)).code == 4


async def test_a_start_is_made_once_for_one_key_and_stale_changes_are_refused(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(tmp_path))
        urls = [await stack.enter_async_context(sample(version)) for version in ("v1.0", "v1.1")]
        await asyncio.to_thread(check_preconditions, gateway.api, urls)


def check_preconditions(api: AdminClient, urls: list[str]) -> None:
    first = {"serviceName": "auth", "version": "v1.0", "url": urls[0], "routes": [{"path": "/"}]}
    api.post("deployment/versions", first)
    version = api.post("deployment/versions", {"serviceName": "auth", "version": "v1.1", "url": urls[1]})
    path = f"deployment/versions/{version['id']}"
    with pytest.raises(ApiError) as stale:
        api.call("PATCH", path, body={"replicas": []}, fields={"if-match": '"1"'})
    assert stale.value.status == 412
    api.post(f"{path}/test")
    start = {"serviceName": "auth", "toVersion": "v1.1", "steps": [10, 100], "stepInterval": 60_000}
    made = api.post("deployment/start", start, **{"idempotency-key": "one"})
    assert api.post("deployment/start", start, **{"idempotency-key": "one"})["id"] == made["id"]
    with pytest.raises(ApiError) as second:
        api.post("deployment/start", start, **{"idempotency-key": "two"})
    assert second.value.status == 409
    with pytest.raises(ApiError) as wrong:
        api.call("PUT", f"deployment/{made['id']}/traffic", body={"percent": 101})
    assert (wrong.value.status, wrong.value.problem["errors"]) == (
        422,
        [{"pointer": "/percent", "detail": "Expected `int` <= 100"}],
    )
    assert api.post(f"deployment/{made['id']}/rollback", {"reason": "enough"})["serviceName"] == "auth"


async def test_an_upgrade_hands_over_and_the_same_token_goes_on(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(tmp_path))
        url = await stack.enter_async_context(sample("v1.0"))
        await gateway_command(gateway, "deploy", "auth", "v1.0", "--url", url, "--route", "/", "--wait")
        before = await asyncio.to_thread(gateway.api.get, "gateway")
        said = await gateway_command(gateway, "upgrade", "-o", "json")
        assert said.code == 0, said
        stack.push_async_callback(stopped, said.json["pid"])
        assert said.json["epoch"] == before["epoch"] + 1
        assert said.json["pid"] != before["pid"]
        assert await who_answers(gateway) == "v1.0"
        assert (await gateway_command(gateway, "freeze", "on")).code == 0


async def stopped(pid: int) -> None:
    """Ask a process that is no child of ours to stop, and wait until it has."""
    os.kill(pid, signal.SIGTERM)
    async with asyncio.timeout(DEADLINE_S):
        while runs(pid):
            await asyncio.sleep(0.05)


def runs(pid: int) -> bool:
    """Return whether the process is there and more than a zombie nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
