"""Sockets before HTTP: listeners, how many connections they hold, PROXY protocol, TLS.

This room accepts and hands over. It must not know a byte of HTTP.
"""
