"""The calls of the admin API, by noun: each hands what was parsed to one function of `actions` and
encodes what comes back.

A call knows which action it asks for and which view shows the answer. It must not know a rule: what is
refused, and why, is the action's to say.
"""
