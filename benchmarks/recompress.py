"""Compresses JPEG files a second time, to see what the first time cost.

    python benchmarks/recompress.py CIFAR10 AGAIN      # class folders, or folders of them
    python train.py --data=AGAIN ...                   # beside the same with CIFAR10

The second compression has the first one's quality and halved colour resolution, and its grid of
blocks lies 4 pixels aside, so that it is not the first one again. What comes out of it is stored
without loss (PNG).
"""

import concurrent.futures
import sys
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console

QUALITY, ASIDE = 75, 4


def recompress(source: Path, target: Path) -> None:
    """Writes one image; its border is mirrored outwards to move the grid.

    Raises:
        ValueError: If the file is no image.
    """
    image = cv2.imread(str(source), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{source} is no image")
    height, width = image.shape[:2]
    larger = cv2.copyMakeBorder(image, *[ASIDE] * 4, cv2.BORDER_REFLECT)
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    again = cv2.imdecode(cv2.imencode(".jpg", larger, options)[1], cv2.IMREAD_COLOR)
    target.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(target), again[ASIDE : ASIDE + height, ASIDE : ASIDE + width])


def main(argv: list[str] | None = None) -> None:
    """Recompresses all JPEG files of a folder."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("source", type=Path, help="folder of JPEG files, at any depth")
    parser.add_argument("output", type=Path, help="folder for the PNG files, of the same names")
    options = parser.parse_args(argv)
    with console.user_errors():
        files = sorted(options.source.rglob("*.jpg"))
        if not files:
            raise ValueError(f"{options.source} holds no .jpg files")
        names = [file.relative_to(options.source).with_suffix(".png") for file in files]
        with concurrent.futures.ThreadPoolExecutor() as threads:
            list(threads.map(recompress, files, (options.output / name for name in names)))
        print(f"{len(files):,} images in {options.output}")


if __name__ == "__main__":
    main()
