"""Decisions, in plain functions: values and `now` in, values out.

This room knows what a route, a version, a breaker and a rollout are. It must not know sockets, files, clocks,
loggers or hidden chance: `now` (monotonic seconds) and random numbers come in as arguments.
"""
