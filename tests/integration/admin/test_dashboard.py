"""The dashboard in a real browser before a real gateway: what it shows, and what it lets whom do.

Debian's Chromium is what is looked with; .ci/run installs it.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from bench.dashboard_stage import PATIENT
from tests.integration.admin.browsing import PATIENCE_MS, PHONE, Cuttable, Theatre, sign_in, theatre

HOSTILE = "<img src=x onerror=\"document.title='run'\">"
BRISK = {"steps": [50, 100], "stepInterval": 1_500, **PATIENT}
SLOW = {"steps": [10, 50, 100], "stepInterval": 300_000}
BAD = {"steps": [50, 100], "stepInterval": 300_000, "warmUp": 0}
AXE: Any = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    with theatre(tmp_path_factory.mktemp("dashboard")) as opened:
        yield opened


async def act(page: Page, button: str, reason: str = "", *, inside: str = "main") -> None:
    """Press a button and confirm what it asks."""
    await page.locator(inside).get_by_role("button", name=button, exact=True).first.click()
    dialog = page.locator("dialog[open]")
    if reason:
        await dialog.get_by_label("Reason").fill(reason)
    await dialog.get_by_role("button").last.click()
    await expect(dialog).to_have_count(0)


async def released(
    house: Theatre, name: str, *, bad: bool = False, path: str = "pay", **config: object
) -> str:
    """Make a service under load and start a canary of its second version; returns the rollout's id."""
    stage = house.stage
    await stage.service(name, ("v1.0", stage.world.first[0]), ("v1.1", stage.bad if bad else stage.good))
    stage.load(name, path, 40.0)
    return await stage.start(name, "v1.1", **config)


def test_signing_in_outlasts_a_reload_and_a_wrong_token_says_why(house: Theatre) -> None:
    async def story() -> None:
        page = await house.visitor()
        await page.fill("#token", "gw_wrong")
        await page.click("#login button[type=submit]")
        await expect(page.locator("#login-error")).not_to_be_empty()
        await sign_in(page, house.stage.world.token)
        await expect(page.locator("#live")).to_have_text("live")
        await page.reload()
        await expect(page.locator("#services .row a").first).to_be_visible()
        kept = "document.cookie + JSON.stringify([sessionStorage, localStorage])"
        assert await page.evaluate(kept) == "[{},{}]"
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.locator("#login")).to_be_visible()
        link = (await house.stage.world.api("POST", "session/link"))["path"]
        await page.goto(f"{house.stage.url.rstrip('/')}{link}")
        await expect(page.locator("#live")).to_have_text("live")

    house.play(story())
    assert house.complaints == []


def test_a_link_that_works_once_signs_in(house: Theatre) -> None:
    async def story() -> None:
        link = (await house.api("POST", "session/link"))["path"].removeprefix("/")
        page = await house.visitor(link)
        await expect(page.locator("#services .row a").first).to_be_visible()
        other = await house.visitor(link)
        await expect(other.locator("#login")).to_be_visible()

    house.play(story())
    assert house.complaints == []


def test_a_good_canary_is_seen_to_its_end(house: Theatre) -> None:
    async def story() -> None:
        rollout = await released(house, "good", **BRISK)
        page = await house.user(f"rollouts/{rollout}")
        await expect(page.locator("h1")).to_have_text("good v1.0 → v1.1")
        await expect(page.locator("h1 + .state")).to_have_text("completed")
        for move in ("started", "next share", "completed"):  # always there; a verdict may end in its step
            await expect(page.locator(".timeline")).to_contain_text(move)
        await expect(page.locator("svg[role=meter]")).to_be_visible()
        await expect(page.get_by_text("passed").first).to_be_visible()  # a smoke report
        for chart in ("Requests", "Errors", "Latency p50", "Latency p95", "Latency p99"):
            await expect(page.get_by_role("img", name=chart).locator("polyline").first).to_be_attached()
        chart = page.get_by_role("img", name="Requests")
        await chart.hover(position={"x": 200, "y": 60})
        await expect(page.locator(".legend .at").first).to_be_visible()

    house.play(story())
    assert house.complaints == []


def test_a_bad_canary_rolls_back_before_the_viewers_eyes_and_stays_a_page(house: Theatre) -> None:
    async def story() -> None:
        rollout = await released(house, "bad", bad=True, **BAD)
        page = await house.user(f"rollouts/{rollout}")
        await expect(page.locator("h1 + .state")).to_have_text("rolled back")
        meter = page.locator("svg[role=meter].over")
        await expect(meter).to_be_visible()
        limit = float(str(await meter.get_attribute("aria-valuetext")).rsplit(" at ", 1)[1].split(" to ")[0])
        assert float(str(await meter.get_attribute("aria-valuenow"))) >= limit
        await expect(page.locator(".mark.back").first).to_be_attached()
        await expect(page.locator("main")).to_contain_text("GET /bad/pay")  # the culprit
        await expect(page.locator("#whatif-said")).to_contain_text("Would have stopped after")
        await page.reload()
        await expect(page.locator("gw-chart polyline").first).to_be_attached()
        await expect(page.locator("path.limit")).to_be_attached()

        await page.get_by_role("link", name="Services", exact=True).click()
        card = page.get_by_role("article", name="bad rolled back")
        await expect(card).to_contain_text("Because: The new version fails")
        await card.get_by_role("button", name="Acknowledge").click()
        await page.get_by_label("Note").fill(HOSTILE)
        await page.locator("dialog[open]").get_by_role("button").last.click()
        await expect(card).to_have_count(0)

        other = await house.visitor(f"rollouts/{rollout}")  # somebody who was sent the link
        await sign_in(other, house.stage.world.token)
        await expect(other.locator(".note")).to_contain_text(HOSTILE)
        assert await other.title() != "run"

    house.play(story())
    assert house.complaints == []


def test_orders_are_confirmed_and_their_reasons_reach_the_api(house: Theatre) -> None:
    async def story() -> None:
        rollout = await released(house, "orders", **SLOW)
        await house.stage.until(rollout, "rolling")
        page = await house.user()
        card = "article[aria-label='Rollout of orders']"
        await act(page, "Pause", HOSTILE, inside=card)
        await expect(page.locator(card)).to_contain_text(f"paused by bootstrap: {HOSTILE}")
        await act(page, "Resume", "they agreed", inside=card)
        await expect(page.locator(card).locator(".state").first).to_have_text("rolling")
        await act(page, "Next step", "looks fine", inside=card)
        await expect(page.locator(card).locator(".share")).to_have_text("50 %")
        await act(page, "All traffic now", "in a hurry", inside=card)
        await expect(page.locator(card).locator(".share")).to_have_text("100 %")
        await act(page, "Roll back", "second thoughts", inside=card)
        await expect(page.locator(card)).to_have_count(0)
        said = {row["reason"] for row in (await house.api("GET", f"deployment/{rollout}/decisions"))["items"]}
        for reason in (HOSTILE, "they agreed", "looks fine", "in a hurry", "second thoughts"):
            assert any(reason in each for each in said), said
        audit = (await house.api("GET", "audit?limit=20"))["items"]
        reasons = [row["details"].get("reason") for row in audit if row["resourceId"] == rollout]
        assert reasons[:5] == ["second thoughts", "in a hurry", "looks fine", "they agreed", HOSTILE]

    house.play(story())
    assert house.complaints == []


def test_a_refusal_is_shown_where_the_question_was_asked(house: Theatre) -> None:
    async def story() -> None:
        page = await house.user("services/auth", viewport=PHONE)
        await act_refused(page)
        await page.keyboard.press("Escape")
        await expect(page.locator("dialog[open]")).to_have_count(0)
        await expect(page.get_by_role("button", name="Undo last release")).to_be_focused()

    async def act_refused(page: Page) -> None:
        await page.get_by_role("button", name="Undo last release").click()
        await page.locator("dialog[open]").get_by_role("button").last.click()
        refusal = page.locator("dialog[open] [role=alert]")
        await expect(refusal).to_be_in_viewport()
        await expect(refusal).not_to_be_empty()

    house.play(story())


def test_a_viewer_has_no_buttons_that_change_anything(house: Theatre) -> None:
    async def story() -> None:
        viewer = (await house.token("viewer", "only-looks"))["token"]
        page = await house.user(token=viewer)
        await expect(page.locator("#services .row a").first).to_be_visible()
        await expect(page.locator("main button")).to_have_count(0)
        await expect(page.get_by_role("link", name="Audit")).to_have_count(0)
        await page.goto(house.stage.url + "services/auth")
        await expect(page.get_by_role("heading", name="Policies in force")).to_be_visible()
        names = await page.locator("main button").all_inner_texts()
        assert set(names) <= {"Copy", "10 min", "1 hour"}
        await page.goto(house.stage.url + "tokens")
        await expect(page.locator("main")).to_contain_text("Only an admin")

    house.play(story())
    assert house.complaints == []


def test_a_revoked_token_leads_back_to_the_form(house: Theatre) -> None:
    async def story() -> None:
        made = await house.token("deployer", "short-lived")
        page = await house.user("history", token=made["token"])
        await house.api("DELETE", f"tokens/{made['id']}")
        await expect(page.locator("#login")).to_be_visible()
        await expect(page.locator("#login-error")).to_contain_text("revoked")
        await sign_in(page, house.stage.world.token)
        await expect(page.get_by_role("heading", name="History")).to_be_visible()

    house.play(story())


def test_a_stream_that_is_cut_goes_on_where_it_was(house: Theatre) -> None:
    async def story() -> None:
        async with Cuttable(house.stage.world.admin_port) as way:
            page = await house.visitor(url=way.url)
            resumed: list[str] = []
            page.on("request", lambda request: resumed.append(request.headers.get("last-event-id", "")))
            await sign_in(page, house.stage.world.token)
            await expect(page.locator("#live")).to_have_text("live")
            await house.api("POST", "services/auth/pause", {"reason": "first"})
            await expect(page.locator("#events")).to_contain_text("holds new requests")
            way.is_shut = True
            way.cut()
            await expect(page.locator("#live")).to_contain_text("stale: last seen")
            await expect(page.locator(".banner.bad")).to_be_visible()
            await house.api("POST", "services/auth/resume", {})
            way.is_shut = False
            await expect(page.locator("#live")).to_have_text("live")
            await expect(page.locator("#events")).to_contain_text("lets requests through again")
            assert any(resumed)

    house.play(story())


def test_without_a_stream_the_page_asks_again_and_again(house: Theatre) -> None:
    async def story() -> None:
        page = await house.visitor()
        await page.route("**/events", lambda route: route.abort())
        await sign_in(page, house.stage.world.token)
        await expect(page.locator("#live")).to_contain_text("polling")
        await house.api("PUT", "freeze", {"frozen": True, "reason": "launch day"})
        await expect(page.locator(".banner.warn")).to_contain_text("launch day")
        await act(page, "Unfreeze", "over", inside="gw-banner")
        await expect(page.locator(".banner.warn")).to_have_count(0)

    house.play(story())


def test_two_hundred_services_are_few_rows_that_follow_the_reader(house: Theatre) -> None:
    async def story() -> None:
        page = await house.visitor()
        await page.route("**/overview", lambda route: crowded(route))
        await sign_in(page, house.stage.world.token)
        rows = page.locator(".rows-body .row")
        await expect(rows.first).to_contain_text("service-000")
        await expect(page.locator("#services-title")).to_contain_text("200")
        assert await rows.count() < 60
        await page.evaluate("scrollTo(0, 180 * 56)")
        await expect(page.get_by_role("link", name="service-190")).to_be_visible()
        assert await rows.count() < 60
        await page.keyboard.press("/")
        await page.keyboard.type("service-077")
        await expect(rows).to_have_count(1)
        assert page.url.endswith("?q=service-077")
        await page.fill("#search", "")
        await page.select_option("select >> nth=1", "rate")
        await expect(rows.first).to_contain_text("service-199")

    async def crowded(route: Any) -> None:
        response = await route.fetch()
        body = await response.json()
        [one] = [each for each in body["items"] if each["name"] == "auth"]
        versions = one["versions"]
        items = [
            {
                **one,
                "id": f"id-{n}",
                "name": f"service-{n:03}",
                "versions": [{**versions[0], "rate": float(n)}],
            }
            for n in range(200)
        ]
        await route.fulfill(json={**body, "items": items})

    house.play(story())
    assert house.complaints == []


def test_a_release_is_registered_tested_and_started_from_its_page(house: Theatre) -> None:
    async def story() -> None:
        stage = house.stage
        await stage.service("shop", ("v1.0", stage.world.first[0]))
        page = await house.user("services/shop")
        await expect(page.locator("main")).to_contain_text("register one first")  # why nothing can be started
        await page.get_by_role("button", name="Register a version").click()
        await page.get_by_label("Version", exact=True).fill("v1.1")
        await page.get_by_label("Address").fill(stage.good.url)
        await page.locator("dialog[open]").get_by_role("button").last.click()
        await page.get_by_role("button", name="Test v1.1").click()
        await expect(page.locator("gw-tester .report")).to_contain_text("GET /orders/1")
        await page.get_by_role("button", name="Start a rollout").click()
        await expect(page.locator(".whatif-line")).to_contain_text("No earlier release is stored")
        await page.get_by_label("Steps").fill("20, nonsense")
        await page.locator("dialog[open]").get_by_role("button").last.click()
        await expect(page.locator("dialog[open] [role=alert]")).to_contain_text("Steps")
        await page.get_by_label("Steps").fill("20, 100")
        await page.get_by_label("Step interval").fill("1h")
        await page.locator("dialog[open]").get_by_role("button").last.click()
        await page.wait_for_url("**/rollouts/*")
        await expect(page.locator("h1")).to_have_text("shop v1.0 → v1.1")
        await expect(page.locator(".settings")).to_contain_text("20, 100")
        found = (await house.api("GET", "deployment?serviceName=shop"))["items"][0]
        assert (found["config"]["steps"], found["config"]["stepInterval"]) == ([20, 100], 3_600_000)

    house.play(story())
    assert house.complaints == []


def test_a_token_is_made_shown_once_and_revoked(house: Theatre) -> None:
    async def story() -> None:
        page = await house.user("tokens")
        await page.get_by_role("button", name="New token").click()
        await page.get_by_label("Name").fill("made-here")
        await page.get_by_label("Role").select_option("operator")
        await page.get_by_label("Expires in").fill("1d")
        await page.locator("dialog[open]").get_by_role("button").last.click()
        secret = await page.locator("dialog[open] .command code").inner_text()
        await page.get_by_role("button", name="I have it").click()
        row = page.locator("tr", has_text="made-here")
        await expect(row).to_contain_text("operator")
        assert secret not in await page.content()
        other = await house.user(token=secret)
        await expect(other.locator("#whoami")).to_contain_text("operator")
        await row.get_by_role("button", name="Revoke").click()
        await page.locator("dialog[open]").get_by_role("button").last.click()
        await expect(row).to_contain_text("revoked")
        await page.goto(house.stage.url + "audit")
        await expect(page.locator("tbody")).to_contain_text("made a token")
        assert "{" not in await page.locator("tbody").inner_text()

    house.play(story())
    assert house.complaints == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_every_page_passes_axe_and_fits(house: Theatre, scheme: str, width: int) -> None:
    """In the dark the same elements have other colours: the pages with most of them are enough."""

    async def story() -> None:
        stage = house.stage
        rollouts = (await house.api("GET", "deployment?limit=1"))["items"]
        if not rollouts:
            await stage.until(await released(house, f"axe-{scheme}", **SLOW), "rolling")
            rollouts = (await house.api("GET", "deployment?limit=1"))["items"]
        [rollout] = rollouts
        size = {"width": width, "height": 900}
        page = await house.visitor(viewport=size, color_scheme=scheme)
        await checked(page, "login")
        await sign_in(page, stage.world.token)
        ready = {
            "": "#services .row",
            f"rollouts/{rollout['id']}": "gw-chart svg.chart",
            f"services/{rollout['serviceName']}": ".probes",
            "history": "tbody tr",
            "audit": "tbody tr",
            "tokens": "tbody tr",
        }
        for path, selector in ready.items():
            await page.goto(stage.url + path)
            await page.wait_for_selector(selector)
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            if scheme == "light" or path == "" or path.startswith("rollouts/"):
                await checked(page, path)
        await page.get_by_role("button", name="New token").click()
        await checked(page, "a dialog")

    async def checked(page: Page, what: str) -> None:
        found = await Axe().run(page, options=AXE)
        serious = [each for each in found.response["violations"] if each["impact"] in ("serious", "critical")]
        said = [(each["id"], [node["html"][:200] for node in each["nodes"]][:3]) for each in serious]
        assert said == [], what

    house.play(story())


def test_an_address_that_leads_nowhere_says_so(house: Theatre) -> None:
    """Guards the page from staying blank for a name that is no name, or tries to be markup."""

    async def story() -> None:
        page = await house.user("services/%25zz")
        for path in (f"services/{HOSTILE.replace(' ', '%20')}", "rollouts/%2e%2e%3Bx"):
            await page.goto(house.stage.url + path)
            await expect(page.get_by_role("heading", level=1)).to_contain_text("No such")
            assert await page.title() != "run"

    house.play(story())


def test_what_waits_for_a_second_person_is_said_and_confirmed(house: Theatre) -> None:
    """The answers are those of a gateway with `admin.second_person`: its own tests are with the API."""
    asked = {
        "id": "ap-1",
        "action": "service.undo",
        "service": "auth",
        "what": "Undo the last release of auth.",
        "askedBy": "ann",
        "createdAt": "2026-01-01T00:00:00Z",
        "expiresAt": "2026-01-01T00:15:00Z",
    }
    decided: list[str] = []

    async def story() -> None:
        page = await house.user()
        await page.route("**/approvals?state=pending", lambda route: route.fulfill(json={"items": waiting()}))
        await page.route("**/approvals/ap-1", decide)
        await page.route(
            "**/services/auth/undo",
            lambda route: route.fulfill(
                status=202, json={**asked, "approvalId": "ap-1", "next": "gateway approve ap-1"}
            ),
        )
        await page.goto(house.stage.url + "services/auth")
        await page.get_by_role("button", name="Undo last release").click()
        await page.locator("dialog[open]").get_by_role("button").last.click()
        await expect(page.locator("dialog[open] .command code")).to_have_text("gateway approve ap-1")
        await page.get_by_role("button", name="I see").click()
        await page.get_by_role("link", name="Services", exact=True).first.click()
        card = page.locator("#approvals article")
        await expect(card).to_contain_text("Undo the last release of auth.")
        await card.get_by_role("button", name="Confirm").click()
        await page.locator("dialog[open]").get_by_role("button").last.click()
        await expect(card).to_have_count(0)
        assert decided == ["POST"]

    def waiting() -> list[dict[str, str]]:
        return [] if decided else [asked]

    async def decide(route: Any) -> None:
        decided.append(route.request.method)
        await route.fulfill(json=asked)

    house.play(story())
    assert house.complaints == []


def test_what_is_drawn_again_keeps_its_place_its_focus_and_what_was_typed(house: Theatre) -> None:
    """Guards the reader: everything is drawn again every two seconds, in another order if need be."""
    script = """async () => {
        const { h, show } = await import("/assets/lib/dom.js");
        const { Part } = await import("/assets/lib/part.js");
        let starts = 0;
        customElements.define("gw-probe", class extends Part {
            start() { starts += 1; }
            draw() { return h("input", { ".value": "" }); }
        });
        const parent = document.createElement("div");
        document.body.append(parent);
        const draw = (...keys) => show(parent, keys.map((key) => h("gw-probe", { "data-key": key })));
        draw("a", "b", "c");
        const field = parent.children[2].querySelector("input");
        field.value = "typed";
        field.focus();
        draw("a", "b", "c");
        const kept = document.activeElement === field && field.value;
        draw("c", "a");
        await new Promise((resolve) => setTimeout(resolve));
        const order = [...parent.children].map((each) => each.dataset.key).join("");
        return [kept, starts, order, parent.firstChild.querySelector("input").value];
    }"""

    async def story() -> Any:
        page = await house.visitor()
        return await page.evaluate(script)

    assert house.play(story()) == ["typed", 3, "ca", "typed"]


def test_times_are_local_with_utc_beside_them(house: Theatre) -> None:
    async def story() -> None:
        page = await house.user("audit", timezone_id="America/New_York")
        time = page.locator("tbody time").last
        await expect(time).to_be_visible()
        shown = await page.evaluate(
            "t => new Date(t.dateTime).toLocaleTimeString('en-GB', {timeZone: 'America/New_York'})",
            await time.element_handle(),
        )
        assert str(shown) in await time.inner_text()
        assert str(await time.get_attribute("title")).endswith("UTC")

    house.play(story())


def test_the_pages_numbers_are_written_as_the_command_line_writes_them(house: Theatre) -> None:
    from gateway.cli import overview

    values = [0.0, 0.004, 0.5, 1.0, 9.94, 12.34, 99.96, 123.4, 2_345.6, 1_234_567.0]

    async def story() -> Any:
        page = await house.visitor()
        return await page.evaluate(
            """async (values) => {
                const { odds, rate } = await import("/assets/lib/format.js");
                return values.map((value) => [odds(value), rate(value)]);
            }""",
            values,
        )

    assert house.play(story()) == [[overview.odds(each), overview.rate(each)] for each in values]
