"""What users typed: redacted, sealed under keys of their own, and erasable."""
