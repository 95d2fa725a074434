"""The servers under measurement, with equal duties.

One thread or process each, pooled keep-alive connections to one upstream, X-Forwarded-For/-Proto/-Host and
X-Request-ID added, access log off unless it is what is measured.
"""

import contextlib
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.peer_configs import (
    CADDY,
    ENVOY,
    GATEWAY,
    GATEWAY_SERVICE,
    GATEWAY_VERSION,
    HAPROXY,
    NGINX_COMMON,
    NGINX_PROXY,
    NGINX_UPSTREAM,
    TRAEFIK,
    TRAEFIK_ROUTES,
)
from bench.procs import FROM_HERE, ServerProcess, find_program, free_port

DUTIES: Final = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id")

Start = Callable[[Path, int], ServerProcess]
"""(an empty folder, the upstream's port) -> the server, listening."""
Servers = dict[str, ServerProcess]


def start_upstream(folder: Path, *, own: bool = False) -> ServerProcess:
    """Start what everyone proxies to: nginx if installed, else (or when asked) `bench.upstream`."""
    nginx = find_program("nginx")
    port = free_port()
    if own or not nginx:
        command = [sys.executable, "-m", "bench.upstream", str(port)]
        return ServerProcess("upstream", command, port=port, folder=folder, env=FROM_HERE).wait_listening()
    config = NGINX_COMMON + NGINX_UPSTREAM
    return start_nginx(
        "upstream", nginx, folder, config.format(port=port, answer="x" * 97, nofile=20_000), port
    )


def start_nginx(name: str, program: str, folder: Path, config: str, port: int) -> ServerProcess:
    path = write(folder / f"{name}.conf", config)
    command = [program, "-p", str(folder), "-c", str(path), "-e", "stderr"]
    return ServerProcess(name, command, port=port, folder=folder).wait_listening()


def nginx(program: str, *, trusts: bool) -> Start:
    """nginx with one worker."""

    def start(folder: Path, upstream: int) -> ServerProcess:
        port = free_port()
        said = ("$http_x_forwarded_proto", "$http_x_forwarded_host") if trusts else ("$scheme", "$http_host")
        config = (NGINX_COMMON + NGINX_PROXY).format(
            port=port, upstream=upstream, nofile=20_000, proto=said[0], host=said[1]
        )
        return start_nginx("nginx", program, folder, config, port)

    return start


def haproxy(program: str, *, trusts: bool) -> Start:
    """HAProxy with one thread."""

    def start(folder: Path, upstream: int) -> ServerProcess:
        port = free_port()
        unless = " unless {{ req.fhdr(X-Forwarded-{}) -m found }}" if trusts else ""
        config = HAPROXY.format(
            port=port,
            upstream=upstream,
            maxconn=11_000,
            unless_proto=unless.format("Proto"),
            unless_host=unless.format("Host"),
        )
        command = [program, "-db", "-f", str(write(folder / "haproxy.cfg", config))]
        return ServerProcess("haproxy", command, port=port, folder=folder).wait_listening()

    return start


def caddy(program: str, *, trusts: bool) -> Start:
    """Caddy, its Go runtime held to one processor."""

    def start(folder: Path, upstream: int) -> ServerProcess:
        port = free_port()
        trust = "servers { trusted_proxies static 127.0.0.0/8 }" if trusts else ""
        trust = trust.replace("{ ", "{\n").replace(" }", "\n}")
        path = write(folder / "Caddyfile", CADDY.format(port=port, upstream=upstream, trust=trust))
        command = [program, "run", "--adapter", "caddyfile", "--config", str(path)]
        return ServerProcess(
            "caddy", command, port=port, folder=folder, env=one_go_thread(folder)
        ).wait_listening()

    return start


def envoy(program: str, *, trusts: bool) -> Start:
    """Envoy with one worker thread; its main thread counts, too."""

    def start(folder: Path, upstream: int) -> ServerProcess:
        port = free_port()
        path = write(
            folder / "envoy.yaml",
            ENVOY.format(types="type.googleapis.com", port=port, upstream=upstream, hops=int(trusts)),
        )
        command = [program, "-c", str(path), "--concurrency", "1", "--log-level", "error"]
        command += ["--use-dynamic-base-id", "--disable-hot-restart"]
        return ServerProcess("envoy", command, port=port, folder=folder).wait_listening()

    return start


def traefik(program: str, *, trusts: bool) -> Start:
    """Traefik, its Go runtime held to one processor."""

    def start(folder: Path, upstream: int) -> ServerProcess:
        port = free_port()
        routes = write(folder / "routes.yaml", TRAEFIK_ROUTES.format(upstream=upstream))
        config = TRAEFIK.format(port=port, routes=routes, trusts=str(trusts).lower())
        command = [program, f"--configFile={write(folder / 'traefik.yaml', config)}"]
        server = ServerProcess("traefik", command, port=port, folder=folder, env=one_go_thread(folder))
        wait_usable(server.wait_listening())  # it listens before it has read its routes
        return server

    return start


def one_go_thread(folder: Path) -> dict[str, str]:
    return {"GOMAXPROCS": "1", "HOME": str(folder), "XDG_DATA_HOME": str(folder)}


PEERS: Final[dict[str, Callable[..., Start]]] = {
    "haproxy": haproxy,
    "nginx": nginx,
    "envoy": envoy,
    "traefik": traefik,
    "caddy": caddy,
}


def gateway(
    *,
    access_log: bool = False,
    services: Callable[[int], str] | None = None,
    path: str = "/",
    trusts: bool = False,
    env: Mapping[str, str] | None = None,
) -> Start:
    """`gateway serve` with one worker and every default policy.

    access_log: write the JSON log to a file. services: the upstream port -> TOML, for other than one service
    with one version. path: what is asked for until the answer is 200. trusts: clients are trusted proxies.
    """

    def start(folder: Path, upstream: int) -> ServerProcess:
        port = free_port()
        log = f'[access_log]\nformat = "json"\npath = "{folder}/access.log"\n' if access_log else ""
        trusted = '"127.0.0.0/8"' if trusts else ""
        config = GATEWAY.format(port=port, admin=free_port(), folder=folder, extra=log, trusted=trusted)
        file = write(folder / "gateway.toml", config + (services or gateway_service)(upstream))
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(file)]
        server = ServerProcess(
            "gateway", command, port=port, folder=folder, env={**FROM_HERE, **(env or {})}
        ).wait_listening()
        wait_usable(server, path)
        return server

    return start


def gateway_service(
    upstream: int, *, versions: int = 1, routes: Sequence[str] = ("/",), policies: str = ""
) -> str:
    """Return the TOML of one service on the path prefixes, its equal versions all at `upstream`."""
    shares = [100 // versions + (k < 100 % versions) for k in range(versions)]
    head = GATEWAY_SERVICE.format(
        name="bench", policies=policies, routes=", ".join(f'{{ path = "{path}" }}' for path in routes)
    )
    return head + "".join(
        GATEWAY_VERSION.format(version=f"v{k}", upstream=upstream, weight=share)
        for k, share in enumerate(shares)
    )


def wait_usable(server: ServerProcess, path: str = "/", tries: int = 600) -> None:
    """Return once the server answers 200: a fresh version must pass its first probe."""
    status = 0
    for _ in range(tries):
        with contextlib.suppress(OSError):
            status, _ = get(server.port, path)
        if status == 200:
            return
        if server.process.poll() is not None:
            break
        time.sleep(0.05)
    server.stop()
    raise RuntimeError(f"{server.name} answers {status} on {path}:\n{server.log_tail()}")


def get(port: int, path: str = "/", fields: Sequence[tuple[str, str]] = ()) -> tuple[int, bytes]:
    """GET once over a connection of its own. Returns the status and everything after the head."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: bench.test",
        "Connection: close",
        *(f"{n}: {v}" for n, v in fields),
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b"".join(iter(lambda: sock.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


def contestants(only: str = "", *, trusts: bool = False, **gateways: Start) -> dict[str, Start]:
    """Return what to measure by name: the gateway, its further forms, and the peers that are installed.

    only: comma-separated names; empty: all. trusts: clients are trusted proxies. Says which peers are not
    installed.
    """
    programs = {name: find_program(name) for name in PEERS}
    if missing := [name for name, program in programs.items() if program is None]:
        print(f"not installed, left out: {', '.join(missing)}\n")
    peers = {name: PEERS[name](program, trusts=trusts) for name, program in programs.items() if program}
    starts = {"gateway": gateway(trusts=trusts), **gateways, **peers}
    return {name: start for name, start in starts.items() if not only or name in only.split(",")}


@contextlib.contextmanager
def running(starts: Mapping[str, Start], folder: Path, *, own_upstream: bool = False) -> Iterator[Servers]:
    """Start an upstream and all these servers in front of it; end them in the end."""
    with contextlib.ExitStack() as stack:
        upstream = start_upstream(subfolder(folder, "upstream"), own=own_upstream)
        stack.callback(upstream.stop)
        servers = {}
        for name, start in starts.items():
            servers[name] = start(subfolder(folder, name), upstream.port)
            stack.callback(servers[name].stop)
        yield servers


def interleaved(servers: Servers, rounds: int) -> Iterator[tuple[str, ServerProcess]]:
    """Yield every server once a round, in an order that turns by one each round."""
    names = list(servers)
    for number in range(rounds):
        turn = number % len(names)
        yield from ((name, servers[name]) for name in names[turn:] + names[:turn])


def check_duties(server: ServerProcess) -> list[str]:
    """Return the fields of `DUTIES` that a server whose upstream echoes does not add."""
    _, echoed = get(server.port, "/echo")
    lower = echoed.lower()
    return [name for name in DUTIES if f"\r\n{name}:".encode() not in lower]


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A temporary folder that servers may use whatever user they change to, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def subfolder(folder: Path, name: str) -> Path:
    """Return a new folder under `folder`, writable by a server that gave up its rights."""
    path = folder / name
    path.mkdir()
    path.chmod(0o777)
    return path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
