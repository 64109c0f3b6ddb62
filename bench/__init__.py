"""What picker costs, measured: `python -m bench.run` prints the table and writes the record. See docs/bench.md."""
