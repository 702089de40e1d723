"""Collaborative metric learning: what a user likes is near, the rest is far."""

__version__ = "0.1.0"
