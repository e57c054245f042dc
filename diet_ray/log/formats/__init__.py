"""The file formats of a log: delimited text, JSON lines, Parquet, ORC, Arrow; each read batch by batch."""
