"""The control process: what exists, what is wanted, what was decided, and who may change it.

It probes, judges, rolls out, supervises and answers operators. It saves first and acts after. It must not
know a single proxied byte: workers serve by the last snapshot they were sent, whether control is there or
not.
"""
