"""Which service, version and endpoint a request goes to.

This room knows routes, weights, cohorts and load. It must not know why a weight is what it is.
"""
