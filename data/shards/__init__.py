"""Converted data on disk: records, folders of shards, and the copies in the cache."""
