"""What is served: evidence, trials, and the one writer of the release log."""
