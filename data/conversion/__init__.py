"""Images become shards: planned, written, described, published."""
