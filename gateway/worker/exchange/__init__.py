"""One request end to end, and how its heads and body are passed on.

This room carries one exchange at a time. It must not know how connections are accepted or tables applied.
"""
