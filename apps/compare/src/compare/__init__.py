"""Comparison of the two engines: every event accounted for."""
