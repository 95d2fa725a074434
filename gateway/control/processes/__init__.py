"""The gateway's own processes: workers, template, links to them, listening sockets, upgrade.

This room keeps workers alive and supplied with tables. It must not know what a table says.
"""
