"""What is told: events, names of rows, counts, recordings."""
