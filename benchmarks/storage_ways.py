"""Ways to store a reduced photograph as JPEG, and the tables of their costs."""

import dataclasses
import statistics

import cv2
import numpy as np

from benchmarks import tables
from benchmarks.setting import BATCH_SIZE

SHORT_SIDE, CROP = 256, 224  # pixels
POLICIES = {"alexnet": "256", "inception": "original"}  # scenario with this policy
TODAY = "420-95"  # reference of the ratios


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to store an image as JPEG.

    Attributes:
        title: Label in tables.
        sampling: Chroma subsampling, as named in OpenCV: "444" is full resolution, "422" halves
            the columns, "420" columns and rows.
        quality: JPEG quality, 1..100.
        chroma: JPEG quality of chroma (default: `quality`).
        optimized: Whether Huffman tables are computed for each image.
        progressive: Whether the file is progressive, which implies `optimized`.
    """

    title: str
    sampling: str
    quality: int
    chroma: int | None = None
    optimized: bool = False
    progressive: bool = False

    def encode(self, image: np.ndarray) -> bytes:
        """Encodes an image, uint8 [H, W, 3] in OpenCV's channel order, as JPEG."""
        options = {
            "QUALITY": self.quality,
            "SAMPLING_FACTOR": getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{self.sampling}"),
            "OPTIMIZE": int(self.optimized),
            "PROGRESSIVE": int(self.progressive),
        }
        if self.chroma is not None:
            options |= {"LUMA_QUALITY": self.quality, "CHROMA_QUALITY": self.chroma}
        pairs = [(getattr(cv2, f"IMWRITE_JPEG_{name}"), value) for name, value in options.items()]
        return cv2.imencode(".jpg", image, [number for pair in pairs for number in pair])[
            1
        ].tobytes()


WAYS = {
    "420-95": Way("4:2:0, quality 95", "420", 95),
    "420-90": Way("4:2:0, 90", "420", 90),
    "422-95": Way("4:2:2, 95", "422", 95),
    "422-90": Way("4:2:2, 90", "422", 90),
    "444-95": Way("4:4:4, 95", "444", 95),
    "444-92": Way("4:4:4, 92", "444", 92),
    "444-90": Way("4:4:4, 90", "444", 90),
    "444-88": Way("4:4:4, 88", "444", 88),
    "444-85": Way("4:4:4, 85", "444", 85),
    "444-85-90": Way("4:4:4, 85, chroma 90", "444", 85, chroma=90),
    "444-90-80": Way("4:4:4, 90, chroma 80", "444", 90, chroma=80),
    "444-90-optimized": Way("4:4:4, 90, own Huffman tables", "444", 90, optimized=True),
    "444-90-progressive": Way("4:4:4, 90, progressive", "444", 90, progressive=True),
}


def title(name: str) -> str:
    """Returns the label of a way in tables."""
    return "not compressed" if name == "none" else WAYS[name].title


def network_rows(rows: dict[str, dict]) -> list[list[str]]:
    """Returns the table of a network."""
    head = ["", "top-1 %", "lost", "gained", "change of p", "log loss", "its change", "+-"]
    return [
        head,
        *(
            [
                title(name),
                f"{100 * row['top1_accuracy']:.2f}",
                str(row["lost"]),
                str(row["gained"]),
                f"{row['probability_change']:.4f}",
                f"{row['loss']:.4f}",
                f"{row['loss_change']:+.4f}",
                f"{row['loss_error']:.4f}",
            ]
            for name, row in rows.items()
        ),
    ]


def bytes_rows(found: dict) -> list[list[str]]:
    """Returns bytes per image and the networks' totals: sums of images, means of other figures."""
    sizes, networks = found["bytes_per_image"], list(found["networks"].values())
    head = ["", "kB an image", "lost", "gained", "change of p", "change of the loss"]
    rows = [head]
    for name, size in sizes.items():
        figures = [each[name] for each in networks]
        rows.append(
            [
                title(name),
                f"{size / 1000:.1f}",
                *(str(sum(row[key] for row in figures)) for key in ("lost", "gained")),
                f"{statistics.mean(row['probability_change'] for row in figures):.4f}",
                f"{statistics.mean(row['loss_change'] for row in figures):+.4f}",
            ]
        )
    return rows


def speed_rows(results: list[dict]) -> list[list[str]]:
    """Returns the speed of every way with a policy, and its ratio to `TODAY` if that was measured.

    A ratio is the median over the ratios of each round, because other load on the machine changes
    from round to round.
    """
    turned = {result["name"]: result["turns"] for result in results}
    rows = [["", "images/s", "lowest - highest", "ratio", "CPU us", "CPU ratio"]]
    for result in results:
        figures, name = tables.summary(result), result["name"]
        rows.append(
            [
                title(name),
                f"{figures['median']:,.0f}",
                f"{figures['lowest']:,.0f} - {figures['highest']:,.0f}",
                _ratio(turned, name, "seconds"),
                f"{figures['cpu']:,.0f}",
                _ratio(turned, name, "cpu"),
            ]
        )
    return rows


def _ratio(turned: dict[str, list[dict]], name: str, cost: str) -> str:
    """Returns how many times as many images a way yields at the same cost, "seconds" or "cpu"."""
    rounds = zip(turned[name], turned.get(TODAY, ()), strict=False)
    ratios = [turn["images"] / turn[cost] * today[cost] / today["images"] for turn, today in rounds]
    return f"{statistics.median(ratios):.3f}" if ratios else ""


def described(report: dict) -> str:
    """Formats the report in Markdown."""
    parts = []
    if found := report.get("accuracy"):
        parts += [
            f"**Published networks on {found['images']} photographs, reduced to a shorter side of "
            f"{SHORT_SIDE} pixels**: against the same pixels before compression, images lost and "
            "gained (sums over the networks), the mean absolute change of the right class' "
            "probability and that of the mean log loss",
            tables.markdown(bytes_rows(found)),
        ]
        for name, rows in found["networks"].items():
            parts += [f"{name}:", tables.markdown(network_rows(rows))]
        parts += [tables.machine_line(found["machine"]), f"    {found['command']}"]
    if found := report.get("speed"):
        for policy, results in found["policies"].items():
            parts += [
                f"**Our input pipeline, policy {policy}**: crops of {CROP}, batches of "
                f"{BATCH_SIZE}, {found['threads']} threads",
                tables.markdown(speed_rows(results)),
            ]
        before, after = found["load"]
        parts += [
            f"Load of the machine before and after: {before:.1f}, {after:.1f}.",
            tables.machine_line(found["machine"]),
            f"    {found['command']}",
        ]
    return "\n\n".join(parts) + "\n"
