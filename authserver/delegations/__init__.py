"""What users allowed: records, the chain from the first delegation to the one in hand, and what ended it."""
