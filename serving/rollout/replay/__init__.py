"""Replays: recent prompts of held-out sessions, asked again of candidate and stable before users meet the candidate."""
