"""Statistics that evaluators share: exact tests, intervals, ranks, permutations, logistic regression."""
