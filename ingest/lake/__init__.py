"""The lake: what was on the topics as Parquet, kept after their retention, and askable."""
