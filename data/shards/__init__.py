"""What lies on the disk: records, their folders, and the copies in the cache."""
