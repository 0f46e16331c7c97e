"""A buyer in plain Python: a shopping list in, a paid order out."""
