"""What must survive a crash: services, versions, deployments, events, evidence, audit, tokens.

This room is the only one with SQL. Others see records (`records.py`) and the two Protocols of `api.py`.
It must not know what a rollout means, who may change what, or that anybody is listening: it keeps rows,
all or nothing.
"""
