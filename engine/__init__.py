"""Training, evaluation, checkpoints and run folders, for any network and any data."""
