"""The data plane, one process per core: listeners, routing table, connections, breakers, counts.

This room carries requests: it reads the current table once for each, asks core what to do, and counts what
became of it. It must not know the store, the admin API or the control process: a request never waits for any
of them.
"""
