"""The documentation: its site, its samples, and what is generated from the code."""
