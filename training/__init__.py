"""The parts of train.py: setup, training state, log and run folder."""
