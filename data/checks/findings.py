"""Findings of the data doctor: their kinds with severity and advice, and the report."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import NamedTuple

from data.images import reading

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")

_FIRST = 3  # findings of a kind to show
_FIRST_PLACES = 4  # images of a finding to show


class Kind(NamedTuple):
    """A row of `KINDS`; an error would spoil a training."""

    severity: str
    title: str
    advice: str


_COPY = "get the file again or delete it; conversion leaves it out"
_SAVE = "get the file again, save it as JPEG or PNG, or delete it; conversion leaves it out"
_AGAIN = "convert again"

KINDS = {  # in the order of the report
    "missing_shard": Kind(ERROR, "missing shard", _AGAIN),
    "wrong_size": Kind(ERROR, "shard of another size than stated", _AGAIN),
    "wrong_sha256": Kind(ERROR, "shard of other content than stated", _AGAIN),
    "wrong_count": Kind(ERROR, "shard of more or fewer records than stated", _AGAIN),
    "damaged_record": Kind(ERROR, "damaged record", _AGAIN),
    "undecodable_record": Kind(ERROR, "record without the image that it states", _AGAIN),
    "label_out_of_range": Kind(ERROR, "label of no class", _AGAIN),
    "too_few_classes": Kind(ERROR, "fewer than two classes with images", "add images"),
    "no_validation": Kind(
        ERROR, "nothing to hold out for validation", "add images, or --validation_fraction=0"
    ),
    "missing_in_train": Kind(
        ERROR, "class in another split, not in train", "add images of it to train, or delete it"
    ),
    "too_many_bad": Kind(
        ERROR, "more unusable files than conversion accepts", "mend them, or convert with --max_bad"
    ),
    "contradiction": Kind(
        ERROR, "the same image in several classes", "keep it in the right class only"
    ),
    "leak": Kind(ERROR, "the same image in several splits", "delete it from all splits but one"),
    "near_leak": Kind(
        ERROR, "nearly the same image in several splits", "delete it from all splits but one"
    ),
    "near_contradiction": Kind(
        WARNING, "nearly the same image in several classes", "look whether the classes are right"
    ),
    "series": Kind(
        WARNING,
        "many images that look alike (one camera, a video?)",
        "keep a series in one split",
    ),
    "unreadable": Kind(
        WARNING, "file that cannot be opened", "check its permissions, and where its link leads"
    ),
    "no_image": Kind(WARNING, "file that is no image of a known format", _SAVE),
    "truncated": Kind(WARNING, "file cut short", _COPY),
    "damaged": Kind(WARNING, "damaged file", _COPY),
    "too_large": Kind(
        WARNING, "more pixels than conversion accepts", "reduce it; conversion leaves it out"
    ),
    "unused_name": Kind(
        WARNING, "name of a class without images", "nothing to do where it is meant to be so"
    ),
    "empty_class": Kind(
        ERROR, "class without an image that can be used", "add images, or delete its folder"
    ),
    "missing_in_split": Kind(
        WARNING, "class in train, not in another split", "add images of it: it is not measured"
    ),
    "few_images": Kind(WARNING, "class of few images", "add images"),
    "imbalance": Kind(
        WARNING,
        "classes of very different size",
        "add images to the small ones, mind per-class figures",
    ),
    "duplicate": Kind(WARNING, "the same image several times", "keep one: it counts several times"),
    "near_duplicate": Kind(NOTE, "nearly the same image several times", "keep the best, or all"),
    "only_alpha": Kind(
        WARNING,
        "a picture in the transparency only",
        "draw it on a background: alpha is dropped, and without it the picture is not there",
    ),
    "one_colour": Kind(
        WARNING, "image of one colour", "check whether it is broken: it shows nothing"
    ),
    "dark": Kind(WARNING, "nearly black image", "check whether it shows anything, else delete it"),
    "wrong_extension": Kind(NOTE, "name of another format", "nothing to do: content decides"),
    "cmyk": Kind(NOTE, "CMYK", "nothing to do: is converted to RGB"),
    "grey": Kind(NOTE, "grey", "nothing to do: becomes three equal channels"),
    "sixteen_bit": Kind(
        NOTE,
        "16 bits per channel",
        "nothing to do: of the bits that all such images together fill, the upper 8 are kept",
    ),
    "alpha": Kind(
        NOTE, "transparency", "look whether it shows without: alpha is dropped, not blended"
    ),
    "rotated": Kind(NOTE, "EXIF orientation", "nothing to do: is turned upright"),
    "animated": Kind(NOTE, "animation or several pages", "split it up if the first is not enough"),
    "tiny": Kind(NOTE, "small image, not compared with others", "look whether it is a preview"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """An image by its name, or by shard and record (from 0)."""

    split: str
    image: str | None = None
    shard: str | None = None
    record: int | None = None

    def __str__(self) -> str:
        """Formats the place on one printable line."""
        record = None if self.record is None else f"record {self.record}"
        parts = [self.shard, record, self.image and f"{_printable(self.image)}"]
        return f"{' '.join(part for part in parts if part)} ({self.split})"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        kind: A key of `KINDS`.
        places: The images or shards, if any.
        detail: Details of the finding.
        class_name: Name of the class, or None.
        split: Name of the split; None if the places state it.
    """

    kind: str
    places: tuple[Place, ...] = ()
    detail: str = ""
    class_name: str | None = None
    split: str | None = None

    def as_dict(self) -> dict:
        """Returns the finding as JSON values, without empty ones."""
        kind = KINDS[self.kind]
        values = asdict(self) | {"places": [_filled(asdict(place)) for place in self.places]}
        return {"severity": kind.severity, "advice": kind.advice} | _filled(values)

    def __str__(self) -> str:
        """Formats the finding on one line."""
        places = " = ".join(map(str, self.places[:_FIRST_PLACES]))
        if len(self.places) > _FIRST_PLACES:
            places += f" = {len(self.places) - _FIRST_PLACES:,} more"
        about = [self.class_name and _printable(self.class_name), self.split and f"({self.split})"]
        subject = " ".join(part for part in [places, *about] if part)
        return ": ".join(part for part in (subject, self.detail) if part)


@dataclass
class Split:
    """Numbers of images in a split.

    Attributes:
        images: All images.
        unusable: Images that cannot be used.
        classes: Usable images of each class, by label.
    """

    images: int
    unusable: int
    classes: list[int]


@dataclass(frozen=True)
class Report:
    """The report about a data set.

    Attributes:
        data: Name of the data.
        class_names: Names of the classes, by label.
        splits: Numbers of images, by split.
        findings: All findings, in any order.
        joined: Classes made of several folders, see `Source.joined`.
        passed_over: Files and folders that are not used, see `PassedOver.parts`.
    """

    data: str
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    findings: list[Finding]
    joined: str = ""
    passed_over: tuple[str, ...] = ()

    @property
    def spoils(self) -> bool:
        """Whether a finding would spoil a training."""
        return bool(self._severities()[ERROR])

    @property
    def verdict(self) -> str:
        """Last line of the report."""
        counts = self._severities()
        numbers = ", ".join(
            f"{counts[severity]:,} {severity}{'s' * (counts[severity] != 1)}"
            for severity in SEVERITIES
            if counts[severity]
        )
        verdict = "would spoil a training" if self.spoils else "nothing that would spoil a training"
        return f"verdict: {verdict} ({numbers or 'nothing found'})"

    def as_json(self) -> str:
        """Formats the report as one line of JSON."""
        ordered = sorted(self.findings, key=lambda finding: _ORDER[finding.kind])
        splits = {
            name: asdict(split)
            | {"classes": dict(zip(self.class_names, split.classes, strict=True))}
            for name, split in self.splits.items()
        }
        report = {
            "data": self.data,
            "class_names": self.class_names,
            "joined": self.joined,
            "passed_over": self.passed_over,
            "splits": splits,
            "findings": [finding.as_dict() for finding in ordered],
            "spoils_training": self.spoils,
            "verdict": self.verdict,
        }
        return json.dumps(report)

    def as_text(self, *, first: int | None = _FIRST) -> str:
        """Formats the report as text: the splits, the findings by kind, the verdict.

        Args:
            first: Maximum number of findings of a kind to show; None for all.
        """
        images = self.splits["train"].classes if "train" in self.splits else None
        summary = reading.summary_lines(
            self.class_names, images, joined=self.joined, passed_over=self.passed_over
        )
        lines = [*map(_printable, summary), ""]
        lines += [f"{'split':<12}{'images':>10}{'unusable':>10}{'classes':>9}{'smallest':>10}"]
        lines[-1] += f"{'largest':>9}"
        for name, split in self.splits.items():
            class_sizes = [images for images in split.classes if images]
            lines.append(
                f"{name:<12}{split.images:>10,}{split.unusable:>10,}{len(class_sizes):>9,}"
                f"{min(class_sizes, default=0):>10,}{max(class_sizes, default=0):>9,}"
            )
        for name, kind in KINDS.items():
            if matching := [finding for finding in self.findings if finding.kind == name]:
                lines += ["", f"{kind.severity}: {kind.title}: {len(matching):,} ({kind.advice})"]
                lines += [f"    {finding}" for finding in matching[:first]]
                if len(matching) > len(matching[:first]):
                    lines.append(f"    ... {len(matching) - first:,} more: --all shows them")
        return "\n".join([*lines, "", self.verdict])

    def _severities(self) -> Counter:
        return Counter(KINDS[finding.kind].severity for finding in self.findings)


_ORDER = {name: place for place, name in enumerate(KINDS)}


def _filled(values: dict) -> dict:
    return {key: value for key, value in values.items() if value not in (None, "", [])}


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)
