"""OverFeat, the fast model.

Pierre Sermanet, David Eigen, Xiang Zhang, Michael Mathieu, Rob Fergus, Yann LeCun, "OverFeat:
integrated recognition, localization and detection using convolutional networks", ICLR 2014,
arXiv:1312.6229. Transcribes table 1.

Images are standardised with the released code's one mean and standard deviation for all channels.

The graph is that of ZFNet, with pools that do not overlap and no normalisation.

Departures: none in the network. The paper slides it over whole images, here a test takes crops.
"""

from functools import partial

from models import registry, zfnet

#         filters, kernel, stride, padding: table 1
CONVOLUTIONS = (
    (96, 11, 4, 0),  # 56 x 56, pooled to 28 x 28
    (256, 5, 1, 0),  # 24 x 24, pooled to 12 x 12
    (512, 3, 1, 1),
    (1024, 3, 1, 1),
    (1024, 3, 1, 1),  # 12 x 12, pooled to 6 x 6
)
DENSE = (3072, 4096)

VARIANTS = {
    "overfeat_fast": registry.Variant(
        partial(zfnet.zfnet, convolutions=CONVOLUTIONS, normalized=(), dense=DENSE, pooling="max"),
        image_size=231,
        policy="alexnet",
        mean=118.380948,
        std=61.896913,
        paper="Sermanet et al. 2014",
        year=2013,
        error="39.0/17.0 top-1/top-5, 1 scale",
    )
}
