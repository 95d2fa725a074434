"""The control process: configuration in force, probes, rollouts, supervision, and what an operator may do.

This room keeps the workers running and tells them, by snapshots over the link, how to choose a version; it
reads their counts and decides. It must not know how a request is proxied (it never touches a proxied byte),
how SQL is written, or how the admin API speaks HTTP.
"""
