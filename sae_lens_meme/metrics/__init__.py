"""Statistics that evaluators share: exact tests, intervals, ranks, permutations, logistic regression."""

LEAST_GAIN = 0.01
"""Nats by which a model must do better with an activation than with zeros in its place. Below it, the share of this gain
that a reconstruction keeps is a quotient of two rounding errors, or has the wrong sign."""
