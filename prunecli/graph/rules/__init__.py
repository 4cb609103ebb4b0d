"""Rules: how each ATen operator passes labels on. The table is in `table`."""
