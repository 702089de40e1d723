"""Evaluation of recommenders: metrics, the ranking of all users, and baselines."""
