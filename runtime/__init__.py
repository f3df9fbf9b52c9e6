"""Functions that every process needs (errors, files, seeds); imports no other package of ours."""
