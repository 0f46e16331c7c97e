"""What administrators see: queries that are bounded in rows and in time, and change nothing."""
