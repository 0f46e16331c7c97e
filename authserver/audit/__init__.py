"""What was decided, when, for whom and by which rule."""
