"""Event streams: what happened, who wants to hear of it, what they have not taken yet, and what is said to them."""
