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

from bench.procs import FROM_HERE, ServerProcess, find_program, free_port

DUTIES: Final = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id")

NGINX_COMMON: Final = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr error; worker_rlimit_nofile {nofile};
events {{ worker_connections {nofile}; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s; client_max_body_size 0;
  client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
"""
NGINX_UPSTREAM: Final = """
  server {{
    listen 127.0.0.1:{port} backlog=4096; default_type text/plain;
    location / {{ return 200 "{answer}"; }}
    location /api/ {{
      add_header ETag $request_id; add_header X-Request-ID $request_id; return 200 "{answer}";
    }}
  }}
}}
"""
NGINX_PROXY: Final = """
  upstream app {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering off;
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Request-ID $request_id;
    }}
  }}
}}
"""
HAPROXY: Final = """
global
  nbthread 1
  maxconn {maxconn}
  no strict-limits
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 30s
  timeout http-keep-alive 75s
  option forwardfor
  http-reuse always
  unique-id-format %[uuid()]
  unique-id-header X-Request-ID
frontend in
  bind 127.0.0.1:{port} backlog 4096
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  default_backend app
backend app
  server app 127.0.0.1:{upstream}
"""
CADDY: Final = """
{{
  admin off
  auto_https off
}}
http://:{port} {{
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:{upstream} {{
    header_up X-Request-ID {{http.request.uuid}}
    transport http {{
      keepalive_idle_conns 512
      keepalive_idle_conns_per_host 512
    }}
  }}
}}
"""
GATEWAY: Final = """
workers = 1
[listen]
address = "127.0.0.1:{port}"
[admin]
address = "127.0.0.1:{admin}"
[store]
url = "sqlite:///{folder}/gateway.db"
{extra}
"""
GATEWAY_SERVICE: Final = """
[[service]]
name = "{name}"
routes = [{routes}]
{policies}
"""
GATEWAY_VERSION: Final = """
[[service.version]]
version = "{version}"
url = "http://127.0.0.1:{upstream}"
weight = {weight}
"""

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


def nginx(program: str) -> Start:
    """nginx with one worker."""

    def start(folder: Path, upstream: int) -> ServerProcess:
        port = free_port()
        config = (NGINX_COMMON + NGINX_PROXY).format(port=port, upstream=upstream, nofile=20_000)
        return start_nginx("nginx", program, folder, config, port)

    return start


def haproxy(program: str) -> Start:
    """HAProxy with one thread."""

    def start(folder: Path, upstream: int) -> ServerProcess:
        port = free_port()
        path = write(folder / "haproxy.cfg", HAPROXY.format(port=port, upstream=upstream, maxconn=11_000))
        command = [program, "-db", "-f", str(path)]
        return ServerProcess("haproxy", command, port=port, folder=folder).wait_listening()

    return start


def caddy(program: str) -> Start:
    """Caddy, its Go runtime held to one processor."""

    def start(folder: Path, upstream: int) -> ServerProcess:
        port = free_port()
        path = write(folder / "Caddyfile", CADDY.format(port=port, upstream=upstream))
        command = [program, "run", "--adapter", "caddyfile", "--config", str(path)]
        env = {"GOMAXPROCS": "1", "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
        return ServerProcess("caddy", command, port=port, folder=folder, env=env).wait_listening()

    return start


def gateway(
    *, access_log: bool = False, services: Callable[[int], str] | None = None, path: str = "/"
) -> Start:
    """`gateway serve` with one worker and every default policy.

    access_log: write the JSON log to a file. services: the upstream port -> TOML, for other than one service
    with one version. path: what is asked for until the answer is 200.
    """

    def start(folder: Path, upstream: int) -> ServerProcess:
        port = free_port()
        log = f'[access_log]\nformat = "json"\npath = "{folder}/access.log"\n' if access_log else ""
        config = GATEWAY.format(port=port, admin=free_port(), folder=folder, extra=log)
        file = write(folder / "gateway.toml", config + (services or gateway_service)(upstream))
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(file)]
        server = ServerProcess("gateway", command, port=port, folder=folder, env=FROM_HERE).wait_listening()
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


def contestants(only: str = "", **gateways: Start) -> dict[str, Start]:
    """Return what to measure by name: the gateway, its further forms, and the peers that are installed.

    only: comma-separated names; empty: all. Says which peers are not installed.
    """
    makers: dict[str, Callable[[str], Start]] = {"haproxy": haproxy, "nginx": nginx, "caddy": caddy}
    programs = {name: find_program(name) for name in makers}
    if missing := [name for name, program in programs.items() if program is None]:
        print(f"not installed, left out: {', '.join(missing)}\n")
    peers = {name: makers[name](program) for name, program in programs.items() if program}
    starts = {"gateway": gateway(), **gateways, **peers}
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
