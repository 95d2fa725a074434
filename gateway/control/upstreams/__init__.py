"""What control knows of endpoints: probes, smoke tests, addresses, breakers, drains.

This room watches and reports. It must not know why a version has its weight.
"""
