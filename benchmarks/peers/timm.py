"""Timm's loader without its final normalisation: batches [B, 3, S, S]."""

from collections.abc import Iterator

import torch
from timm.data import create_dataset, create_loader
from timm.data.transforms import ToNumpy
from torchvision import transforms

from benchmarks.setting import Setting


def timm(setting: Setting) -> Iterator[torch.Tensor]:
    """Reads class folders without a break between epochs."""
    dataset = create_dataset("", str(setting.path("files")))
    loader = create_loader(
        dataset,
        input_size=(3, setting.size, setting.size),
        batch_size=setting.batch_size,
        is_training=True,
        color_jitter=0.0,
        interpolation="bilinear",
        num_workers=setting.threads,
        use_multi_epochs_loader=True,
        device=torch.device("cpu"),
    )
    if not setting.about.resizes:
        crop, flip = transforms.RandomCrop(setting.size), transforms.RandomHorizontalFlip()
        dataset.transform = transforms.Compose([crop, flip, ToNumpy()])
    while True:
        for images, _ in loader.loader:  # timm wraps it to cast and normalise
            yield images
