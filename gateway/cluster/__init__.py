"""Several gateways over one database: which there are, and what each has yet to read of what others changed.

This room asks the store and decides by plain values. It must not know what a service or a rollout means,
nor how a table comes to the workers: whoever starts it says what is to be done. A gateway alone on a file
has none of it running.
"""
