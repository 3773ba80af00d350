"""Privacy: what is taken out of a text before it is written anywhere."""
