"""Decodes strangers' image files to pixels, in processes of their own; no TensorFlow."""
