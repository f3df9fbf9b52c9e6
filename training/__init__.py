"""What train.py joins: data, network, optimizer, and the run that is kept of it."""
