"""A gateway as people run it, between real clients and a live nginx, Flask and node service."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from bench.procs import FROM_HERE, ServerProcess, find_program, free_port

HERE: Final = Path(__file__).parent
NGINX: Final = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
  access_log off;
  absolute_redirect off;  # it would name the port it listens on itself
  types {{ text/plain txt; }}
  if_modified_since before;
  gzip on;
  gzip_min_length 100;
  gzip_types text/plain;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/www;
  }}
}}
"""
CONFIG: Final = """
workers = 1
[listen]
address = "127.0.0.1:{port}"
[admin]
address = "127.0.0.1:{admin}"
[store]
url = "sqlite:///{folder}/gateway.db"
"""
SERVICE: Final = """
[[service]]
name = "{name}"
routes = [{{ path = "/{name}" }}]
health = {{ kind = "tcp", interval = 1000 }}
[[service.version]]
version = "v1.0"
url = "http://127.0.0.1:{port}"
weight = 100
"""


class Site(NamedTuple):
    """Where to ask: the same paths directly and through the gateway."""

    direct: dict[str, str]
    """Service -> `http://host:port`."""
    through: str

    def direct_of(self, path: str) -> str:
        return self.direct[path.split("/")[1]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything running, each on a port of its own."""
    for program in ("nginx", "node"):
        if find_program(program) is None:
            pytest.skip(f"{program} is not installed")
    folder = tmp_path_factory.mktemp("site")
    servers: list[ServerProcess] = []
    try:
        for start in (start_nginx, start_flask, start_node, start_websockets):
            servers.append(start(folder))
        direct = {server.name: f"http://127.0.0.1:{server.port}" for server in servers}
        servers.append(start_gateway(folder, servers))
        yield Site(direct, f"http://127.0.0.1:{servers[-1].port}")
    finally:
        for server in servers:
            server.stop()


def start_nginx(folder: Path) -> ServerProcess:
    program, port = find_program("nginx"), free_port()
    assert program is not None
    files = folder / "www" / "nginx"
    (files / "folder").mkdir(parents=True)
    (files / "file.txt").write_text("a file\n")
    (files / "long.txt").write_text("a line that is there often\n" * 5_000)
    (files / "folder" / "index.html").write_text("<title>folder</title>")
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, user="user root;" if os.geteuid() == 0 else ""))
    command = [program, "-p", str(folder), "-c", str(config), "-e", "stderr"]
    return ServerProcess("nginx", command, port=port, folder=folder).wait_listening()


def start_flask(folder: Path) -> ServerProcess:
    port = free_port()
    command = [sys.executable, str(HERE / "flask_service.py"), str(port)]
    return ServerProcess("flask", command, port=port, folder=folder).wait_listening()


def start_node(folder: Path) -> ServerProcess:
    program, port = find_program("node"), free_port()
    assert program is not None
    command = [program, str(HERE / "node_service.js"), str(port)]
    return ServerProcess("node", command, port=port, folder=folder).wait_listening()


def start_websockets(folder: Path) -> ServerProcess:
    port = free_port()
    command = [sys.executable, str(HERE / "ws_service.py"), str(port)]
    return ServerProcess("ws", command, port=port, folder=folder).wait_listening()


def start_gateway(folder: Path, services: list[ServerProcess]) -> ServerProcess:
    port = free_port()
    config = folder / "gateway.toml"
    tables = [SERVICE.format(name=each.name, port=each.port) for each in services]
    config.write_text(CONFIG.format(port=port, admin=free_port(), folder=folder) + "".join(tables))
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
    server = ServerProcess("gateway", command, port=port, folder=folder, env=FROM_HERE)
    urls = [f"http://127.0.0.1:{port}/{each.name}/" for each in services]
    server.wait_until(lambda: all(map(is_served, urls)), "serving", 60)
    return server


def is_served(url: str) -> bool:
    """Whether a service answers, whatever it says."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as answer:
        return answer.code not in (502, 503)
    except OSError:
        return False
    return True
