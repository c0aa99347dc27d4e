"""One reader of rows for detect, filter and training: JSON Lines, CSV, Parquet, Arrow, compressed or not."""
