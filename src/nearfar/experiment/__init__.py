"""Many runs: grids of settings over folds, and what can be concluded from them."""
