"""What an auditor asks for: each control of four frameworks, and what this running system shows of it."""
