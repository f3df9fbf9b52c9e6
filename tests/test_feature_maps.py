"""The sizes of the maps that the papers print: the comments in the families of plain networks."""

import pytest
from outlines import maps, outline

ALEXNET = {
    "relu1": (55, 55, 96),
    "pool1": (27, 27, 96),
    "relu2": (27, 27, 256),
    "pool2": (13, 13, 256),
    "relu3": (13, 13, 384),
    "relu4": (13, 13, 384),
    "relu5": (13, 13, 256),
    "pool5": (6, 6, 256),
    "flatten": (9216,),
}
VGG = {
    "pool1": (112, 112, 64),
    "pool2": (56, 56, 128),
    "pool3": (28, 28, 256),
    "pool4": (14, 14, 512),
    "pool5": (7, 7, 512),
}
STUDY = {"pool1": (16, 16, 32), "pool2": (8, 8, 64), "average": (128,)}
MOBILENET = {
    "stem": (112, 112, 32),
    "block1_pointwise": (112, 112, 64),
    "block3_pointwise": (56, 56, 128),
    "block5_pointwise": (28, 28, 256),
    "block11_pointwise": (14, 14, 512),
    "block13_pointwise": (7, 7, 1024),
}
NIN_CIFAR = {
    "conv1": (32, 32, 192),
    "mlp1_2": (32, 32, 96),
    "conv2": (16, 16, 192),
    "conv3": (8, 8, 192),
    "classes": (8, 8, 10),
}
MAPS = {
    "lenet5": {
        "conv1": (28, 28, 6),
        "pool2": (14, 14, 6),
        "conv3": (10, 10, 16),
        "pool4": (5, 5, 16),
        "conv5": (1, 1, 120),
    },
    "alexnet": ALEXNET | {"norm1": (55, 55, 96), "norm2": (27, 27, 256)},
    "alexnet_bn": ALEXNET | {"norm5": (13, 13, 256)},
    "alexnet_one_tower": ALEXNET,
    "alexnet_one_gpu": {"relu1": (55, 55, 48), "pool5": (6, 6, 256)},
    "alexnet_owt": {"relu1": (55, 55, 64), "pool2": (13, 13, 192), "pool5": (6, 6, 256)},
    "caffenet": ALEXNET | {"norm1": (27, 27, 96), "norm2": (13, 13, 256)},
    "zfnet": {
        "conv1": (110, 110, 96),
        "norm1": (55, 55, 96),
        "conv2": (26, 26, 256),
        "norm2": (13, 13, 256),
        "pool5": (6, 6, 256),
    },
    "overfeat_fast": {
        "conv1": (56, 56, 96),
        "pool1": (28, 28, 96),
        "conv2": (24, 24, 256),
        "pool2": (12, 12, 256),
        "conv5": (12, 12, 1024),
        "pool5": (6, 6, 1024),
    },
    "nin": {
        "conv1": (54, 54, 96),
        "pool1": (27, 27, 96),
        "pool2": (13, 13, 256),
        "pool3": (6, 6, 384),
        "mlp4_1": (6, 6, 1024),
        "classes": (6, 6, 10),
    },
    "nin_cifar": NIN_CIFAR,
    "dsn": NIN_CIFAR,
    "vgg11": VGG,
    "vgg19_bn": VGG | {"norm5_4": (14, 14, 512)},
    "cifarnet": {
        "pool1": (16, 16, 64),
        "norm1": (16, 16, 64),
        "norm2": (16, 16, 64),
        "pool2": (8, 8, 64),
    },
    "all_cnn_c": {"conv3": (16, 16, 96), "conv6": (8, 8, 192), "conv7": (6, 6, 192)},
    "highway19": {
        "highway1_4": (32, 32, 32),
        "highway2_5": (16, 16, 80),
        "highway3_5": (8, 8, 128),
        "conv4": (8, 8, 100),
    },
    "squeezenet1_0": {
        "conv1": (111, 111, 96),
        "fire4": (55, 55, 256),
        "fire8": (27, 27, 512),
        "fire9": (13, 13, 512),
        "conv10": (15, 15, 10),
    },
    "squeezenet1_1": {
        "conv1": (111, 111, 64),
        "fire3": (55, 55, 128),
        "fire5": (27, 27, 256),
        "fire9": (13, 13, 512),
        "conv10": (13, 13, 10),
    },
    "mobilenet_100": MOBILENET,
    "study2017_3x3": STUDY,
    "study2017_5x5": STUDY,
    "study2017_mixed": STUDY,
    "airbench94": {
        "whiten": (31, 31, 24),
        "stage1_pool": (15, 15, 64),
        "stage2_pool": (7, 7, 256),
        "stage3_pool": (3, 3, 256),
        "pool": (1, 1, 256),
    },
}


@pytest.mark.parametrize("name", MAPS)
def test_feature_maps(name):
    assert maps(outline(name, 10), MAPS[name]) == MAPS[name]
