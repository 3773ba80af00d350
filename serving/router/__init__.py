"""The front door: which arm, which engine, and feedback."""
