"""What `make chart` does: the chart's values, schema and README from models; rendering, and every check of it."""
