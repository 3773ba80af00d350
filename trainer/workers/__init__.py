"""The learner on Ray."""
