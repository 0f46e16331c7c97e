"""The organisation's policies at work: their files, their states, and what they need to know of the past."""
