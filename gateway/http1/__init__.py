"""Bytes <-> HTTP/1.1 messages: heads and bodies read, both ends of a connection.

The proxy and the admin listener share this one server, so it is hardened once. This room knows RFC 9110 and
RFC 9112. It must not know routes, versions, rollouts, breakers or the store: who owns a connection hands it a
handler and decides.
"""
