"""Gradient-based meta-learning in JAX: MAML, L2F and the methods that grew from them."""

__version__ = "0.1.0"
