"""What must not lose or harm anything, done again and again, and counted."""
