"""ResNeXt: residual bottlenecks whose 3 x 3 convolution is split into groups.

Saining Xie, Ross Girshick, Piotr Dollar, Zhuowen Tu, Kaiming He, "Aggregated residual
transformations for deep neural networks", CVPR 2017, arXiv:1611.05431. Transcribes table 1
(ImageNet) and section 5.3 (CIFAR, 29 layers). "32x4d" is 32 groups of 4 channels in the first
stage; every stage doubles the width.

Departures: the same as in ResNet, which shares its graph. The CIFAR networks normalise after each
convolution, as the authors' code does, where the paper's first version did so before.
"""

from functools import partial

from models import registry, resnet

#            blocks in conv2_x, conv3_x, conv4_x, conv5_x: table 1
DEPTHS_50 = (3, 4, 6, 3)
DEPTHS_101 = (3, 4, 23, 3)
DEPTHS_29 = (3, 3, 3)

_row = partial(registry.Variant, paper="Xie et al. 2017", year=2016)


def _imagenet(depths, groups, group_width, error):
    # resnext50_32x4d: 56 x 56 x 256, 28 x 28 x 512, 14 x 14 x 1024, 7 x 7 x 2048
    block = partial(resnet.bottleneck, groups=groups, group_width=group_width)
    graph = partial(resnet.resnet, stem=resnet.imagenet_stem, block=block, depths=depths)
    return _row(graph, image_size=224, policy="inception", error=f"{error} top-1, 1 crop")


def _cifar(groups, group_width, error):
    # resnext29_8x64d: 32 x 32 x 256, 16 x 16 x 512, 8 x 8 x 1024
    block = partial(resnet.bottleneck, groups=groups, group_width=group_width)
    graph = partial(resnet.resnet, stem=resnet.cifar_stem, block=block, depths=DEPTHS_29)
    return _row(graph, image_size=32, policy="cifar", error=f"{error} CIFAR-10+")


VARIANTS = {
    "resnext50_32x4d": _imagenet(DEPTHS_50, 32, 4, "22.2"),
    "resnext101_32x4d": _imagenet(DEPTHS_101, 32, 4, "21.2"),
    "resnext101_64x4d": _imagenet(DEPTHS_101, 64, 4, "20.4"),
    "resnext29_8x64d": _cifar(8, 64, "3.65"),
    "resnext29_16x64d": _cifar(16, 64, "3.58"),
}
