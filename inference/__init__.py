"""Tests and predictions of trained networks: the library of test.py, classify.py and export.py."""
