"""Budgets, actions and transfers: the only code that moves an amount."""
