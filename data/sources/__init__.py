"""Sources of images: folders, archives, ImageNet, packaged data sets."""
