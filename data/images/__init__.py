"""Decodes untrusted image files to pixels in separate processes, without TensorFlow."""
