"""The admin API, as one calls it: JSON in, JSON out, problems as one line."""

import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from gateway.cli.exits import TIMED_OUT, ApiError, CliError, Kept, Unreachable
from gateway.cli.text import printable, say

T = TypeVar("T")

BASE: Final = "/api/v1/admin"
HANDOVER_WAITS_S: Final = (0.5, 1.0, 2.0, 4.0, 0.0)
"""Between tries while the API answers 503: it is being replaced, and did nothing."""
NO_ROUTE: Final = "no route names this host and path"
"""What a worker says: it was taken for the admin listener."""
PIECE_BYTES: Final = 256 * 1024
STREAM_IDLE_S: Final = 60.0
"""An event stream beats every 15 s; silent for longer than this, it is gone."""
READ_S: Final = 10.0
"""How long one of several gateways may take to answer what the next one may be asked as well."""


class ServerEvent(NamedTuple):
    """One Server-Sent Event."""

    id: str
    kind: str
    data: Any


class Reply(NamedTuple):
    """One answer. retry_after: what the API says of when to come again; empty: nothing."""

    status: int
    body: bytes
    retry_after: str = ""


class NotAsked(Unreachable):
    """No connection came about: whatever was to be asked was not."""


class AdminClient:
    """One admin API, one token. A connection a call: an operator's calls are few.

    Of several gateways over one store any may be asked: what one does not take is for the next.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        """url: or several, with commas between. tls: makes the context for an https url."""
        self._places = [_place_of(each.strip()) for each in url.split(",")]
        self._token = _sound(token)
        self._tls = tls
        self.timeout_s = timeout_s
        self.listen: tuple[str, ...] = ()
        """Where clients connect, as base urls, if that is known here."""
        self.token_file = ""
        """Where the token was read, if nobody gave it."""
        self.has_moved = False
        """Whether another one than the first was asked since: it may know less yet."""
        self._said = set[str]()
        """Which of those that were left somebody has heard of."""
        self.is_for_people = False
        """Whether what is answered is to be printed as text, not handed on as JSON."""

    @property
    def url(self) -> str:
        """Return where it is asked now."""
        return self._places[0].geturl()

    def stay(self) -> None:
        """Ask no other gateway from now on."""
        self._places = self._places[:1]

    def others(self) -> "Iterator[AdminClient]":
        """Yield a client of each other gateway that was given."""
        for place in self._places[1:]:
            other = AdminClient(place.geturl(), self._token, timeout_s=self.timeout_s, tls=self._tls)
            other.token_file, other.is_for_people = self.token_file, self.is_for_people
            yield other

    def get(self, path: str, **query: object) -> Any:
        """Return the JSON of a GET under the admin base; parameters that are None are left out."""
        return self.call("GET", path, query=query)

    def post(self, path: str, body: object = None, **fields: str) -> Any:
        """Return the JSON of a POST under the admin base."""
        return self.call("POST", path, body=body, fields=fields)

    def items(self, path: str, *, limit: int | None = None, **query: object) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page after page, at most `limit`."""
        left, cursor = limit, None
        while left is None or left > 0:
            page = self.get(path, **query, after=cursor, limit=min(left or 200, 200))
            yield from page["items"]
            left = None if left is None else left - len(page["items"])
            cursor = page.get("next")
            if cursor is None:
                return

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, object] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Any:
        """Return the decoded JSON answer, None for an empty one.

        Raises ApiError for a status of 400 or more, Unreachable when nobody answers, CliError on a timeout.
        """
        target = _target(BASE + "/" + path, query)
        reply = self._until_taken(method, target, body, fields)
        decoded = _decode(reply.body)
        if reply.status >= 400:
            raise refusal(reply, decoded, has_token=bool(self._token), token_file=self.token_file)
        if reply.status == 202 and isinstance(decoded, dict) and "approvalId" in decoded:
            raise Kept(decoded)
        return printable(decoded) if self.is_for_people else decoded

    def _until_taken(self, method: str, target: str, body: object, fields: Mapping[str, str] | None) -> Reply:
        """Return the first answer that is no 503: whoever says that did nothing. After a while, the last."""
        for wait_s in HANDOVER_WAITS_S:
            for _ in self._places:
                reply = self.raw(method, target, body=body, fields=fields)
                if reply.status != 503:
                    return reply
                self._leave(f"{self.url} takes no call now (503)")
            time.sleep(wait_s)
        return reply

    def raw(
        self, method: str, target: str, *, body: object = None, fields: Mapping[str, str] | None = None
    ) -> Reply:
        """Return the answer of any path of the admin listener."""
        is_read = method == "GET"  # may be asked twice: of the next, where one dies or freezes amid it

        def ask(left: int) -> Reply:
            timeout_s = min(self.timeout_s, READ_S) if is_read and left else self.timeout_s
            return self._once(self._connect(timeout_s), method, target, body, fields or {})

        return self._walk(ask, is_repeatable=is_read)

    def _walk(self, ask: Callable[[int], T], *, is_repeatable: bool) -> T:
        """Return what `ask` has of the first gateway that does not fail it, each asked once.

        ask: is told how many are left. is_repeatable: whether the next may be asked what one has been asked
        already. Raises what the last one raised.
        """
        for left in range(len(self._places) - 1, -1, -1):
            try:
                return ask(left)
            except CliError as exc:
                if not left or not (is_repeatable or isinstance(exc, NotAsked)):
                    raise
                self._leave(str(exc))
        raise AssertionError("the last one answers, or its error is raised")

    def _once(
        self, connection: HTTPConnection, method: str, target: str, body: object, fields: Mapping[str, str]
    ) -> Reply:
        try:
            answer = self._ask(connection, method, target, body, fields)
            return Reply(answer.status, answer.read(), answer.getheader("retry-after", ""))
        except TimeoutError as exc:
            raise CliError(f"no answer from {self.url} within {connection.timeout:g} s", TIMED_OUT) from exc
        except (OSError, HTTPException) as exc:
            raise Unreachable(unreachable(self.url, exc)) from exc
        finally:
            connection.close()

    def pieces(self, path: str) -> Iterator[bytes]:
        """Yield an answer's body piece by piece. Raises as `call` does."""
        connection = self._connect_any(self.timeout_s)
        try:
            answer = self._ask(connection, "GET", BASE + "/" + path, None, {"accept": "*/*"})
            if answer.status >= 400:
                problem = _decode(answer.read())
                known = problem if isinstance(problem, dict) else {}
                raise ApiError(answer.status, known, explain(answer.status, problem))
            while piece := answer.read(PIECE_BYTES):
                yield piece
        except (OSError, HTTPException) as exc:
            raise Unreachable(f"the answer of {self.url} broke off: {exc or type(exc).__name__}") from exc
        finally:
            connection.close()

    def events(self, path: str, *, last_id: str | None = None, **query: object) -> Iterator[ServerEvent]:
        """Yield Server-Sent Events until the stream ends. Raises as `call` does."""
        connection = self._connect_any(STREAM_IDLE_S)
        fields = {"accept": "text/event-stream"} | ({"last-event-id": last_id} if last_id else {})
        try:
            answer = self._ask(connection, "GET", _target(BASE + "/" + path, query), None, fields)
            if answer.status >= 400:
                reply = Reply(answer.status, answer.read(), answer.getheader("retry-after", ""))
                raise refusal(
                    reply, _decode(reply.body), has_token=bool(self._token), token_file=self.token_file
                )
            for event in parse_events(line.decode() for line in answer):
                yield event._replace(data=printable(event.data)) if self.is_for_people else event
        except TimeoutError as exc:
            raise self._left(Unreachable(f"the event stream of {self.url} went silent")) from exc
        except (OSError, HTTPException) as exc:
            raise self._left(
                Unreachable(f"the event stream of {self.url} broke: {exc or type(exc).__name__}")
            ) from exc
        finally:
            connection.close()

    def _connect_any(self, timeout_s: float) -> HTTPConnection:
        """Return a connection to the first that can be reached. Raises NotAsked if none can."""
        return self._walk(lambda _: self._connect(timeout_s), is_repeatable=False)

    def _connect(self, timeout_s: float) -> HTTPConnection:
        """Return a connection to the one that is asked now. Raises NotAsked."""
        connection = self._connection(timeout_s)
        try:
            connection.connect()
        except OSError as exc:
            connection.close()
            raise NotAsked(unreachable(self.url, exc)) from exc
        return connection

    def _connection(self, timeout_s: float) -> HTTPConnection:
        place = self._places[0]
        if place.scheme == "https":
            return HTTPSConnection(place.netloc, timeout=timeout_s, context=self._tls())
        return HTTPConnection(place.netloc, timeout=timeout_s)

    def _leave(self, why: str) -> None:
        """Go on at the next gateway, and say so: once of each that is left."""
        if len(self._places) == 1:
            return
        left = self.url
        self._places = self._places[1:] + self._places[:1]
        self.has_moved = True
        if left not in self._said:
            self._said.add(left)
            say(f"{why}; going on at {self.url}", err=True)

    def _left(self, why: Unreachable) -> Unreachable:
        self._leave(str(why))
        return why

    def _ask(
        self, connection: HTTPConnection, method: str, target: str, body: object, fields: Mapping[str, str]
    ) -> HTTPResponse:
        headers = {"accept": "application/json", "connection": "close", **fields}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        raw = None
        if body is not None:
            raw = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        connection.request(method, target, raw, headers)
        return connection.getresponse()


def _place_of(url: str) -> SplitResult:
    """Return where a url leads, without a path. Raises CliError (2)."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    try:
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        usable = False
    if not usable:
        raise CliError(f"{url!r} is not an admin URL such as http://127.0.0.1:4201", 2)
    return SplitResult(parts.scheme, parts.netloc, "", "", "")


def _sound(token: str | None) -> str | None:
    """Return a token as a field's value may hold it. Raises CliError (2), without showing it."""
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise CliError(
            "that is no token: --token or GATEWAY_TOKEN has a blank, or what is no ASCII, in it", 2
        )
    return token


def segment(name: str) -> str:
    """Return a name as one path segment."""
    return quote(name, safe="")


def refusal(reply: Reply, problem: object, *, has_token: bool, token_file: str = "") -> ApiError:
    """Return a refusal as the error it ends the command with: what was said, and what to do next."""
    status = reply.status
    if status == 401 and not has_token:
        line = "no token: use --token or GATEWAY_TOKEN; none is readable beside the store"
    elif status == 401 and token_file:
        line = f"{explain(status, problem)}: it is that of {token_file}; use --token or GATEWAY_TOKEN"
    elif status == 404 and (line := explain(status, problem)) == NO_ROUTE:
        line = f"{line}: clients are answered there; is GATEWAY_ADMIN_URL admin.address (127.0.0.1:4201)?"
    else:
        line = explain(status, problem)
    if reply.retry_after:
        line = f"{line}; try again in {reply.retry_after} s"
    step = problem.get("next") if isinstance(problem, dict) else ""
    if step:
        line = f"{line}: {printable(step)}"
    return ApiError(status, problem if isinstance(problem, dict) else {}, line)


def unreachable(url: str, exc: Exception) -> str:
    """Return why no admin API answered, and what to do about it."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return (
            f"{url} shows a certificate that is not trusted ({exc.verify_message}): "
            "GATEWAY_ADMIN_CA names the file of its CA"
        )
    if isinstance(exc, ssl.SSLError):
        return f"{url} does not speak TLS as we do ({exc.reason}): is it http://?"
    if isinstance(exc, ConnectionRefusedError):
        return (
            f"connection refused at {url}: control is down; traffic is still served by its workers, "
            "where it has run; start it with: gateway serve"
        )
    return f"cannot reach the admin API at {url}: {exc or type(exc).__name__}"


def explain(status: int, problem: object) -> str:
    """Return one line that says what a problem (RFC 9457) says."""
    problem = printable(problem)
    if not isinstance(problem, dict):
        return f"the admin API answered {status}"
    line = str(problem.get("detail") or problem.get("title") or f"the admin API answered {status}")
    places = [f"{error.get('pointer')}: {error.get('detail')}" for error in problem.get("errors") or ()]
    further = [place for place in places if place != line]
    return f"{line} ({'; '.join(further)})" if further else line


def parse_events(lines: Iterator[str]) -> Iterator[ServerEvent]:
    """Yield the events of a text/event-stream; comments are dropped, data is JSON."""
    last_id, kind, data = "", "message", [""][:0]
    for line in lines:
        name, _, value = line.rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            last_id = value
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif not name and not value and data:
            yield ServerEvent(last_id, kind, json.loads("\n".join(data)))
            kind, data = "message", []


def _target(path: str, query: Mapping[str, object] | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _decode(raw: bytes) -> object:
    if not raw:
        return None
    try:
        return json.loads(raw)
    except ValueError as exc:
        raise CliError("the admin API answered with something that is not JSON") from exc
