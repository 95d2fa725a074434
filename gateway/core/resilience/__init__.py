"""What keeps trouble at one endpoint from spreading: breakers, health by thresholds, retries within a budget.

This room knows outcomes of attempts and probes. It must not know versions' weights or rollouts.
"""
