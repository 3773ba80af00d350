"""`onstream lineage`: what a version is made of and who let it out, and what a trace has become part of."""
