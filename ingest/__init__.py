"""The log and what is on it: records, topics, chains, sessions."""
