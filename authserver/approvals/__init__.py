"""What an agent waits for and who answers: requests bound to one exact action, answers, rules, limits."""
