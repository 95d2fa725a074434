"""One worker process without control: the command line names the descriptors of its link and listeners."""

import socket
import sys

import msgspec

from gateway.link.spawn import Spawn
from gateway.worker.main import run_worker

order = msgspec.json.decode(sys.argv[1], type=Spawn)
link, *listeners = [socket.socket(fileno=int(fd)) for fd in sys.argv[2:]]
sys.exit(run_worker(order, link, listeners))
