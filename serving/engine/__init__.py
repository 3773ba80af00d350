"""One engine: vLLM with capture around it, its weights, its control and scoring ports."""
