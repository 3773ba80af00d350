"""The learner: advantages, losses, batches, Ray actors, published versions."""
