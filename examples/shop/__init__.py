"""Example Foods, a shop whose API takes action tokens: Flask and the kit. README.md says how to start it."""
