"""Measurements of the gateway beside its peers, and of what it promises under faults.

`python -m bench` lists them. Everything runs on loopback as real processes: the gateway as `gateway serve`
ships it, nginx, HAProxy and Caddy as Debian ships them. What is not installed is named and left out. This
package knows the gateway only by its command line, its admin API and its sockets; only `bench.judge` imports
a room of it.
"""
