"""What the client makes of answers."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from gateway.cli import client
from gateway.cli.client import AdminClient, Reply, explain, parse_events, segment
from gateway.cli.exits import DENIED, FAILED, USAGE, ApiError, CliError, Unreachable


def test_events_are_read_as_they_are_written() -> None:
    text = "retry: 2000\n\n: still here\n\n"
    text += 'id: 7\nevent: a.b\ndata: {"x": 1}\n\nid: 8\nevent: c\ndata: {}\n\ndata: {"cut": '
    events = list(parse_events(iter(text.splitlines(keepends=True))))
    assert [(event.id, event.kind, event.data) for event in events] == [
        ("7", "a.b", {"x": 1}),
        ("8", "c", {}),
    ]


def test_a_problem_is_one_line_with_its_places() -> None:
    problem = {"title": "T", "detail": "no", "errors": [{"pointer": "/weight", "detail": "too much"}]}
    assert explain(422, problem) == "no (/weight: too much)"
    assert explain(422, {**problem, "detail": "/weight: too much"}) == "/weight: too much"
    assert explain(404, {"title": "Not Found"}) == "Not Found"
    assert explain(502, None) == "the admin API answered 502"


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://h:port", "http://h:99999"])
def test_a_url_that_is_none_is_a_usage_error(url: str) -> None:
    with pytest.raises(CliError) as caught:
        AdminClient(url)
    assert caught.value.code == USAGE


def test_a_host_and_port_alone_are_plain_http() -> None:
    assert AdminClient("127.0.0.1:4201").url == "http://127.0.0.1:4201"


def test_a_name_is_one_segment() -> None:
    assert segment("a/b c") == "a%2Fb%20c"


def test_pages_are_followed_to_the_end_or_the_limit(api: Any, made: Any) -> None:
    api.answers["GET services"] = [made.page({"n": 1}, {"n": 2}, cursor="c"), made.page({"n": 3})]
    assert [item["n"] for item in api.items("services")] == [1, 2, 3]
    assert [target for target, _ in api.asked] == ["GET services?limit=200", "GET services?after=c&limit=200"]
    api.answers["GET services"] = [made.page({"n": 1}, {"n": 2}, cursor="c")]
    assert [item["n"] for item in api.items("services", limit=2)] == [1, 2]


@pytest.mark.parametrize(
    ("status", "code"), [(401, DENIED), (403, DENIED), (404, FAILED), (409, FAILED), (500, FAILED)]
)
def test_refusals_have_their_exit_code(api: Any, status: int, code: int) -> None:
    api.answers["GET gateway"] = (status, {"detail": "no"})
    with pytest.raises(ApiError) as caught:
        api.get("gateway")
    assert (caught.value.code, caught.value.status) == (code, status)


def test_an_answer_that_is_not_json_is_one_line(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "raw", lambda *_, **__: Reply(200, b"<html>"))
    with pytest.raises(CliError, match="not JSON"):
        api.get("gateway")


def test_a_503_is_tried_again_and_then_reported(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "HANDOVER_WAITS_S", (0.0, 0.0, 0.0))
    api.answers["GET gateway"] = [(503, {"detail": "being replaced"}), (503, {}), {"epoch": 4}]
    assert api.get("gateway") == {"epoch": 4}
    api.answers["GET gateway"] = (503, {"detail": "being replaced"})
    with pytest.raises(ApiError, match="being replaced"):
        api.get("gateway")


class Listening:
    """An admin API that answers every call alike, and counts them."""

    def __init__(self, status: int) -> None:
        self.calls = calls = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                calls.append(self.path)
                self.send_response(status)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self) -> "Listening":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_of_several_gateways_the_one_that_takes_a_change_is_found_and_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Listening(503) as follower, Listening(200) as leader:
        api = AdminClient(f"{closed_port()}, {follower.url},{leader.url}", "gw_x")
        assert api.post("deployment/d/rollback") == {}
        assert api.url == leader.url
        assert api.post("deployment/d/rollback") == {}
        assert (len(follower.calls), len(leader.calls)) == (1, 2), "each is made once where it is taken"
    said = capsys.readouterr().err.splitlines()
    assert [line.rpartition("; ")[2] for line in said] == [
        f"going on at {follower.url}",
        f"going on at {leader.url}",
    ]


def test_who_takes_no_call_now_is_left_as_who_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "HANDOVER_WAITS_S", (0.0, 0.0))
    with Listening(503) as busy, Listening(200) as other:
        api = AdminClient(f"{busy.url},{other.url}", "gw_x")
        assert not api.has_moved
        api.get("gateway")
        assert api.has_moved, "the next may know less yet"
        alone = AdminClient(busy.url, "gw_x")
        with pytest.raises(ApiError):
            alone.get("gateway")
        assert not alone.has_moved


def test_the_others_of_several_gateways_are_those_that_were_not_asked() -> None:
    api = AdminClient("http://127.0.0.1:1,https://h:2,127.0.0.1:3", "gw_x")
    assert [other.url for other in api.others()] == ["https://h:2", "http://127.0.0.1:3"]


def test_where_none_can_be_reached_the_last_says_why() -> None:
    first, second = closed_port(), closed_port()
    with pytest.raises(Unreachable, match=f"connection refused at {second}"):
        AdminClient(f"{first},{second}", "gw_x").get("gateway")


class _Gone:
    """An admin API that takes a call, and ends without an answer; or, frozen, takes it and says nothing."""

    def __init__(self, *, is_frozen: bool) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.calls = 0
        self._is_frozen = is_frozen
        self._taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            taken, _ = self._socket.accept()
            self._taken.append(taken)
            if not taken.recv(4096):
                return
            self.calls += 1
            if not self._is_frozen:
                taken.close()

    def __enter__(self) -> "_Gone":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.create_connection(self._socket.getsockname()):
            pass
        self._thread.join()
        for each in (self._socket, *self._taken):
            each.close()


@pytest.mark.parametrize("is_frozen", [False, True])
def test_what_is_read_from_a_gateway_that_is_lost_amid_it_is_read_from_the_next(
    is_frozen: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "READ_S", 0.5)
    with _Gone(is_frozen=is_frozen) as lost, Listening(200) as other:
        api = AdminClient(f"{lost.url},{other.url}", "gw_x")
        assert api.get("gateway") == {}
        assert (api.get("gateway"), api.url, api.has_moved) == ({}, other.url, True)
        assert (lost.calls, len(other.calls)) == (1, 2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert lost.url in said[0]
    assert said[0].endswith(f"; going on at {other.url}")


def test_who_means_one_gateway_asks_no_other() -> None:
    with Listening(200) as other:
        api = AdminClient(f"{closed_port()},{other.url}", "gw_x")
        api.stay()
        with pytest.raises(Unreachable):
            api.get("gateway")
        assert other.calls == []


def test_a_change_that_was_not_answered_is_not_made_again_elsewhere() -> None:
    with _Gone(is_frozen=False) as lost, Listening(200) as other:
        with pytest.raises(Unreachable):
            AdminClient(f"{lost.url},{other.url}", "gw_x").post("deployment/start")
        assert (lost.calls, other.calls) == (1, [])
