"""What an operator may do: one function for each call, with its rules, its audit row and its refusals.

This room knows roles and resources. It must not know HTTP: `admin` parses and encodes.
"""
