"""Input pipelines of other projects, configured for a CPU as their guides recommend.

All yield endless uint8 batches in random order, half of the images mirrored, not normalised. Each
package has its own module, and any package may be missing. For peers with their own file format,
the files are written from the same bytes as our shards.
"""

from benchmarks.turns import Candidate

PREFETCH = 2  # batches per worker
SHUFFLED = 1024  # images in a shuffle buffer
AREA = (0.08, 1.0)  # range of a random-resized-crop's area, a fraction of the image
RATIO = (3 / 4, 4 / 3)

_TENSORS = Candidate("torch", "PyTorch DataLoader, tensors", "benchmarks.peers.pytorch:tensors")
_PIL = Candidate("pil", "PyTorch DataLoader, PIL", "benchmarks.peers.pytorch:pil")
_MEMORY = Candidate("torch", "PyTorch DataLoader, in memory", "benchmarks.peers.pytorch:memory")
_TIMM = Candidate("timm", "timm", "benchmarks.peers.timm:timm")
_FFCV = Candidate("ffcv", "FFCV", "benchmarks.peers.ffcv:ffcv")
_DALI = Candidate("dali", "NVIDIA DALI", "benchmarks.peers.dali:dali")
_GRAIN = Candidate("grain", "Grain, OpenCV", "benchmarks.peers.grain:grain")
_TAR = Candidate("webdataset", "WebDataset, tensors", "benchmarks.peers.webdataset:webdataset")

PEERS = {
    "original": [_TENSORS, _PIL, _TIMM, _FFCV, _DALI, _GRAIN, _TAR],
    "256": [_TENSORS, _PIL, _TIMM, _FFCV, _DALI, _GRAIN, _TAR],
    "squares": [_TENSORS, _PIL, _TIMM, _FFCV, _DALI, _GRAIN, _TAR],
    "raw": [_MEMORY, _FFCV, _DALI, _GRAIN],
    "small": [_MEMORY, _FFCV, _DALI, _GRAIN, _TAR],
}
