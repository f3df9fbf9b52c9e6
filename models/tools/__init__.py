"""What is done with networks: measured, drawn, given the weights of others."""
