"""How good a self-summary is: a component a file, none of which needs a judge model."""
