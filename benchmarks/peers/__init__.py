"""Ways to read training data that other projects offer, set up as their guides say for a CPU.

All yield uint8 batches, mirrored half of the time, not normalised, in random order without end. A
file per package, any of which may be missing. Where a peer has a file format of its own, its files
are written from the very bytes of our shards.
"""

from benchmarks.turns import Candidate

PREFETCH = 2  # batches of a worker
SHUFFLED = 1024  # images, of windows in memory
AREA = (0.08, 1.0)  # of a random-resized-crop
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
