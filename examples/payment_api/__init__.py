"""A payment API with stored cards that takes action tokens: FastAPI and the kit. README.md says how to start it."""
