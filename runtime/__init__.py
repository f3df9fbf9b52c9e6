"""What every process needs; imports nothing of ours."""
