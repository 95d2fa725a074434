"""All that passes between control and a worker: snapshots down, counts up, and how they are framed.

This room knows both ends' words and neither end's work: it holds no decision and no byte of a client's.
"""
