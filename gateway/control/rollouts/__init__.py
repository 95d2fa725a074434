"""Rollouts carried out: the loop that feeds the pure machine, commits what it answers and acts on it.

This room moves time, counts and commands. It must not know when a rollout should advance: `core/rollout`
says so.
"""
