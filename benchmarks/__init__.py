"""Programs that measure. Each prints a table against a floor of the same run and, last, one JSON line."""
