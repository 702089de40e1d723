"""Interactions: ids, the pairs of users and items as a sparse matrix (CSR), and splits."""
