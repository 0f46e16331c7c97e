"""What builds the documentation; nothing of it is installed."""
