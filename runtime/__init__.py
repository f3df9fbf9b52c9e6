"""Needs of every process, such as errors, files and seeds; imports nothing else of ours."""
