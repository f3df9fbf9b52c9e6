"""Bytes of strangers to pixels, in processes of their own; no TensorFlow."""
