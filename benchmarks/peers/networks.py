"""PyTorch networks with the same layers as ours: from torchvision, from timm, or written here."""

import timm
import torch
import torchvision
from torch import nn

CLASSES = 1000


def alexnet() -> nn.Module:
    """AlexNet of Krizhevsky et al. 2012: two towers, local response normalisation, 227 pixels."""
    norm = {"size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2}
    towers = [
        *(nn.Conv2d(3, 96, 11, 4), nn.ReLU(), nn.LocalResponseNorm(**norm), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU()),
        *(nn.LocalResponseNorm(**norm), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
    ]
    dense = [
        nn.Flatten(),
        *(nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(4096, CLASSES),
    ]
    return nn.Sequential(*towers, *dense)


class _Block(nn.Module):
    """Two 3 x 3 convolutions with a shortcut that subsamples and pads channels with zeros."""

    def __init__(self, inside: int, filters: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, filters, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.stride, self.more = stride, filters - inside

    def forward(self, x):
        """Returns maps [B, filters, H / stride, W / stride] for maps [B, C, H, W]."""
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(y + nn.functional.pad(x, (0, 0, 0, 0, 0, self.more)))


def cifar_resnet20() -> nn.Module:
    """ResNet-20 for CIFAR-10 of He et al. 2015, section 4.2."""
    blocks = [
        _Block(inside if not number else filters, filters, stride if not number else 1)
        for inside, filters, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        for number in range(3)
    ]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES)]
    return nn.Sequential(*stem, *blocks, *end)


def googlenet_bn() -> nn.Module:
    """GoogLeNet of torchvision, which has 3 x 3 instead of 5 x 5 (slightly less computation)."""
    return torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False)


def inception_v3() -> nn.Module:
    """Inception v3 of torchvision, without its auxiliary classifier."""
    return torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False)


NETWORKS = {
    "alexnet": alexnet,
    "cifar_resnet20": cifar_resnet20,
    "vgg16": torchvision.models.vgg16,
    "resnet50": torchvision.models.resnet50,
    "inception_v3": inception_v3,
    "densenet121": torchvision.models.densenet121,
    "mobilenet_100": lambda: timm.create_model("mobilenetv1_100", pretrained=False),
    "googlenet_bn": googlenet_bn,
}
