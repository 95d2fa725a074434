"""What a command costs beyond starting Python, as processor time: a busy machine stretches that little."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

SERVICES = 200
ALLOWED_S = 0.3


@pytest.fixture
def gateway_of_200(made: Any) -> Iterator[str]:
    """An admin API with 200 services, of two versions each; gives its url."""
    items = []
    for number in range(SERVICES):
        versions = [made.seen(id=f"{number}-{each}", version=f"v1.{each}", weight=50) for each in range(2)]
        items += made.glance(*versions, name=f"service-{number:03}")["items"]
    answer = json.dumps({"frozen": False, "freezeReason": "", "items": items}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def cost_s(url: str, *arguments: str) -> float:
    """Return the processor time of a command, in seconds."""
    environment = {**os.environ, "GATEWAY_ADMIN_URL": url, "GATEWAY_TOKEN": "gw_x"}
    command = [sys.executable, "-m", "gateway", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_get_of_200_services_costs_little_more_than_a_command_that_asks_nothing(gateway_of_200: str) -> None:
    """It took 3 s once."""
    bare = cost_s(gateway_of_200, "--version")
    assert cost_s(gateway_of_200, "get") - bare < ALLOWED_S
