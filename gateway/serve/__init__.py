"""The control process put together: starts every room in order, stops them in reverse.

This room wires and decides nothing: whoever needs something is given it here. It is the only one that may
know them all.
"""
