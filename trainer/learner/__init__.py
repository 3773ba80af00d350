"""What one update does: samples to packed microbatches, their log-probabilities, the loss, the optimiser's step."""
