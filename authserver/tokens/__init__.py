"""What this server signs: its keys, action tokens, delegation grants, and the lists that say what still stands."""
