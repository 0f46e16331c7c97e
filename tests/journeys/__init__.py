"""Whole journeys over real HTTP: one file for each row of what the product must do."""
