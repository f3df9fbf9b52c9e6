"""Checks of images and shards, to find faults before a training."""
