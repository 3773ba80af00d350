"""The learner on Ray, and how its files reach it."""
