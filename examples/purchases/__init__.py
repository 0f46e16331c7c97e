"""Three ways in which a person lets an agent buy, and what each costs the person: README.md."""
