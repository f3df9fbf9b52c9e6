"""Which weights other libraries publish for our networks, a file per library."""
