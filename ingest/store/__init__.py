"""What is served: versions of weights, and the releases that put them in force."""
