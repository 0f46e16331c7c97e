"""Telling people that an agent waits for them: where they want to be told, what is still to be sent, and three ways."""
