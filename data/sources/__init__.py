"""Where images come from: folders, archives, ImageNet, data sets of others."""
