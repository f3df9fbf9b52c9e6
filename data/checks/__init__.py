"""What is wrong with images and shards, found before a training is."""
