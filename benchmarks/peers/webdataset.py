"""WebDataset with torchvision's decoder: batches [B, 3, S, S]."""

import io
import tarfile
from collections.abc import Iterator

import torch
from webdataset import WebDataset, WebLoader

from benchmarks.peers import PREFETCH, SHUFFLED, pytorch
from benchmarks.setting import Setting

SHARDS = 16


def webdataset(setting: Setting) -> Iterator[torch.Tensor]:
    """Reads tar files, which each worker chooses at random."""
    vary = pytorch.crop(setting)

    def finish(example: dict[str, bytes]) -> tuple[torch.Tensor, int]:
        encoded = torch.frombuffer(bytearray(example["jpg"]), dtype=torch.uint8)
        return vary(pytorch.decoded(encoded)), int(example["cls"])

    dataset = WebDataset(_tar_files(setting), resampled=True, shardshuffle=False)
    dataset = dataset.shuffle(SHUFFLED).map(finish).batched(setting.batch_size, partial=False)
    loader = WebLoader(
        dataset, batch_size=None, num_workers=setting.threads, prefetch_factor=PREFETCH
    )
    for images, _ in loader:
        yield images


def _tar_files(setting: Setting) -> list[str]:
    files = setting.files()
    shards = min(SHARDS, len(files))
    names = [str(setting.path(f"webdataset-{shard:05d}.tar")) for shard in range(shards)]
    for shard, name in enumerate(names):
        with tarfile.open(name, "w") as archive:
            for path, label in files[shard::shards]:
                _add(archive, path.name, path.read_bytes())
                _add(archive, f"{path.stem}.cls", str(label).encode())
    return names


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
