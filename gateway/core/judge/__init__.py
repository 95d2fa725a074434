"""Whether a new version does worse than the old one, from counts of what both answered.

This room knows windows, errors with the share in force, and statistics. It must not know phases or orders:
its answer is a verdict, and `core/rollout` decides what follows.
"""
