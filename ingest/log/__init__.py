"""The event log: topics, reading, sending, dead letters; over Kafka or in memory."""
