"""Converts images to shards: plans, writes, describes and publishes them."""
