"""What people see, in a real browser and by plain HTTP."""
