"""The admin listener: who may ask, what may be asked, and how it is written down in JSON.

This room knows HTTP, tokens, roles, the route table, the exposition of metrics and the dashboard. It must
not know a rule of a rollout, a line of SQL or a worker: a handler parses, calls one function of
`actions`, encodes.
"""
