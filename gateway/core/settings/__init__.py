"""What settings may say: the checked forms of limits, target urls, secrets and smoke tests.

This room knows which values are legal and names what is wrong with the others. It must not know where a
setting came from.
"""
