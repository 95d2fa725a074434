"""The rollout as a machine: state and event in, state and commands out.

This room knows phases, steps and orders. It must not know who carries commands out, or how.
"""
