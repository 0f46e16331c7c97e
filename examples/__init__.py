"""Real programs against a real server: a shop, a demonstration, and a server to try things with."""
