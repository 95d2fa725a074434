"""Services and versions in force: what the store and the file say, as the table workers get.

This room is the one writer of the routing table. It must not know rollouts' rules.
"""
