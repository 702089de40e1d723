"""How good a recommender is: metrics, the ranking of all users, and baselines."""
