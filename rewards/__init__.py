"""Scores for trajectories: scorers, the spec that combines them, the stage that runs it."""
