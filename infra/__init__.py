"""Plumbing every stage uses and that knows none of them."""
