"""One request end to end, and how its heads and body are passed on.

This room carries one exchange at a time; its `*_head.py` write heads that `http1` has read. It must not know
how connections are accepted or tables applied.
"""
