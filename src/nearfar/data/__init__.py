"""Interactions: ids, the pairs of users and items in compressed rows, and how they are split."""
