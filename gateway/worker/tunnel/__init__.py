"""Connections joined after a 101: WebSockets and other upgrades, and how they drain.

This room relays bytes both ways and finds frame boundaries. It must not know how the upgrade was agreed.
"""
