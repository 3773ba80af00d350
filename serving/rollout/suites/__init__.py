"""Offline suites: tasks that a candidate is asked before users meet it, beside stable."""
