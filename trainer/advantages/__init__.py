"""What each turn of a batch is worth: against what was expected, of whom, and how often asked before. Pure."""
