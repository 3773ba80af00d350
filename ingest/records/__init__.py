"""What lies on the log: records, their bytes, and the ids in them."""
