"""Weights of Caffe's model zoo: BVLC's AlexNet, CaffeNet and GoogLeNet, and Network in Network.

Caffe reads images as blue, green, red: the input channels of the first kernel are in that order,
while our networks see red, green, blue. Means are given for the latter. Caffe's own networks
subtract a mean image of 256 x 256 pixels from AlexNet's, CaffeNet's and Network in Network's crops;
its average is the mean that Caffe's examples use for classification.
"""

from models import alexnet
from models.sources.rows import Rule

ALEXNET = (("conv#", "conv#"), ("fc6", "fc6"), ("fc7", "fc7"), ("fc8", "fc8"))

_BRANCHES = (
    ("1x1_1", "1x1"),
    ("3x3_1", "3x3_reduce"),
    ("3x3_2", "3x3"),
    ("5x5_1", "5x5_reduce"),
    ("5x5_2", "5x5"),
    ("pool_2", "pool_proj"),
)
GOOGLENET = (
    ("conv1_conv", "conv1/7x7_s2"),
    ("conv2_reduce_conv", "conv2/3x3_reduce"),
    ("conv2_conv", "conv2/3x3"),
    *((f"inception_#~_{ours}_conv", f"inception_#~/{theirs}") for ours, theirs in _BRANCHES),
    ("aux#_conv", "loss#/conv"),
    ("aux#_dense", "loss#/fc"),
    ("aux#_fc", "loss#/classifier"),
    ("fc", "loss3/classifier"),
)
NIN = (
    ("conv1", "conv1"),
    ("mlp1_1", "cccp1"),
    ("mlp1_2", "cccp2"),
    ("conv2", "conv2"),
    ("mlp2_1", "cccp3"),
    ("mlp2_2", "cccp4"),
    ("conv3", "conv3"),
    ("mlp3_1", "cccp5"),
    ("mlp3_2", "cccp6"),
    ("conv4", "conv4-1024"),
    ("mlp4_1", "cccp7-1024"),
    ("classes", "cccp8-1024"),
)

RULES = {
    "alexnet": Rule(ALEXNET, options={"lrn": alexnet.CAFFE_LRN}, bgr=True),
    "caffenet": Rule(ALEXNET, bgr=True),
    "googlenet": Rule(GOOGLENET, bgr=True),
    "nin": Rule(NIN, bgr=True),
}
