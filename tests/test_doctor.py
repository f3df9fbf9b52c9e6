"""doctor: everything that is wrong is found, nothing else, and nothing is changed."""

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import tarfile
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pillow_heif
import pytest
from conftest import photograph
from PIL import Image

from data import doctor
from data.checks import checkup, duplicates, survey
from data.checks.checkup import Checkup, Unsound
from data.checks.findings import KINDS, Finding, Place
from data.conversion import conversion
from data.images import jpeg, workers
from data.images.decode import Storage
from data.images.examples import Example, Source
from data.shards import datasets, records
from data.sources.sources import open_source

pillow_heif.register_heif_opener()


def examined(*words):
    """Exit code and what the command prints."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as end:
        doctor.main([*map(str, words), "--workers=1"])
    out.flush()
    return end.value.code, out.buffer.getvalue().decode()


def found(*words):
    """Exit code, and what was found: by kind, a sorted list of what it is about."""
    code, text = examined(*words, "--json")
    assert text.count("\n") == 1
    report, kinds = json.loads(text), {}
    for finding in report["findings"]:
        assert (finding["severity"], finding["advice"]) == KINDS[finding["kind"]][::2]
        about = [each for each in (finding.get("class_name"), finding.get("split")) if each]
        about += [where(place) for place in finding.get("places", ())]
        kinds.setdefault(finding["kind"], []).append(" = ".join(about))
    return code, {kind: sorted(about) for kind, about in kinds.items()}


def where(place):
    if "record" in place:
        return f"{place['shard']} {place['record']}"
    return f"{place['split']}/{place['image']}" if "image" in place else place["shard"]


def contents(folder):
    return {
        str(path): (path.lstat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in sorted(folder.rglob("*"))
    }


def put(path, image, **options):
    """Writes RGB pixels, or a Pillow image, or bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(path, **options)


def jpeg_bytes(seed, **options):
    file = io.BytesIO()
    Image.fromarray(photograph(seed)).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def smaller(image):
    return cv2.resize(image, (60, 48), interpolation=cv2.INTER_AREA)


def patched_png(width, height):
    """A PNG that says to be of another size."""
    data = bytearray(cv2.imencode(".png", photograph(0))[1].tobytes())
    data[16:24] = width.to_bytes(4) + height.to_bytes(4)
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


def turned(image):
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"image": image, "exif": exif}


def with_bogus_marker(data):
    middle = data.index(b"\xff\xda") + 300
    return data[:middle] + b"\xff\xc0" + data[middle + 2 :]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A flat folder of 60 sound JPEG files in 3 classes."""
    root = tmp_path_factory.mktemp("clean") / "photos"
    for seed in range(60):
        put(root / f"class_{seed % 3}" / f"{seed}.jpg", jpeg_bytes(seed))
    return root


@pytest.fixture(scope="module")
def ward(tmp_path_factory):
    """A folder with everything that can be wrong, and what the doctor says of it."""
    root = tmp_path_factory.mktemp("ward") / "images"
    for i in range(20):
        for j, split in enumerate(("train", "validation", "test")):
            put(root / split / "cat" / f"{i}.jpg", jpeg_bytes(1000 + 100 * j + i))
            put(root / split / "dog" / f"{i}.jpg", jpeg_bytes(2000 + 100 * j + i))
    train, validation = root / "train", root / "validation"
    put(train / "lone/1.jpg", jpeg_bytes(3000))
    put(validation / "new/1.jpg", jpeg_bytes(3001))
    put(train / "empty/plan.dwg", b"AC1032")
    put(train / "hopeless/1.jpg", b"")
    (train / "nothing").mkdir()
    cat = train / "cat"
    put(cat / "cut.jpg", jpeg_bytes(1)[:-200])
    put(cat / "cut.png", cv2.imencode(".png", photograph(2))[1].tobytes()[:-900])
    put(cat / "page.jpg", b"<html>not found</html>")
    put(cat / "none.jpg", b"")
    (cat / "gone.jpg").symlink_to("/not/mounted.jpg")
    put(cat / "marker.jpg", with_bogus_marker(jpeg_bytes(3)))
    put(cat / "bomb.png", patched_png(20_000, 20_000))
    put(cat / "grey.jpg", Image.fromarray(photograph(4)).convert("L"))
    put(cat / "cmyk.jpg", Image.fromarray(photograph(5)).convert("CMYK"))
    cv2.imwrite(str(cat / "deep.png"), photograph(6).astype(np.uint16) * 257)
    put(cat / "alpha.png", np.dstack([photograph(7), np.full((80, 100), 90, np.uint8)]))
    put(cat / "turned.jpg", **turned(Image.fromarray(photograph(8))))
    frames = [Image.fromarray(photograph(seed)) for seed in (9, 10)]
    put(cat / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    put(cat / "other.jpg", Image.fromarray(photograph(11)), format="PNG")
    put(cat / "small.png", photograph(12, 20, 31))
    put(cat / "opaque.png", np.dstack([photograph(13), np.full((80, 100), 255, np.uint8)]))
    shape = np.full((80, 100), 0, np.uint8)
    shape[20:60, 30:70] = 255
    put(cat / "logo.png", np.dstack([np.full((80, 100, 3), 255, np.uint8), shape]))
    put(cat / "night.png", photograph(14) // 40)
    put(cat / "telephone.heic", photograph(15))
    put(cat / "scan.jfif", photograph(16), format="JPEG")
    for level in range(4):  # plain ones are not near duplicates of one another
        put(cat / f"plain_{level}.png", np.full((80, 100, 3), 60 * level + 20, np.uint8))
    put(cat / "one.jpg", jpeg_bytes(20))
    put(train / "dog/one.jpg", jpeg_bytes(20))
    put(cat / "two.jpg", jpeg_bytes(21))
    put(validation / "cat/two.png", Image.open(cat / "two.jpg"))  # the same pixels
    put(cat / "three.jpg", jpeg_bytes(22))
    put(cat / "three_again.jpg", jpeg_bytes(22, comment=b"other bytes"))
    put(cat / "four.jpg", jpeg_bytes(23))
    put(root / "test/cat/four.jpg", smaller(photograph(23)))
    put(cat / "five.jpg", jpeg_bytes(24))
    put(cat / "five_dark.jpg", cv2.convertScaleAbs(photograph(24), alpha=0.9))
    put(cat / "six.jpg", jpeg_bytes(25))
    put(train / "dog/six.jpg", smaller(photograph(25)), quality=50)
    before = contents(root)
    code, kinds = found(root)
    assert contents(root) == before
    return root, code, kinds


EXPECTED = {
    "missing_in_train": ["new"],
    "contradiction": ["train/cat/one.jpg = train/dog/one.jpg"],
    "leak": ["train/cat/two.jpg = validation/cat/two.png"],
    "near_leak": ["train/cat/four.jpg = test/cat/four.jpg"],
    "near_contradiction": ["train/cat/six.jpg = train/dog/six.jpg"],
    "unreadable": ["train/cat/gone.jpg"],
    "no_image": ["train/cat/none.jpg", "train/cat/page.jpg", "train/hopeless/1.jpg"],
    "truncated": ["train/cat/cut.jpg", "train/cat/cut.png"],
    "damaged": ["train/cat/marker.jpg"],
    "too_large": ["train/cat/bomb.png"],
    "empty_class": ["empty", "hopeless"],
    "missing_in_split": ["lone = test", "lone = validation"],
    "few_images": ["lone"],
    "imbalance": ["train"],
    "duplicate": ["train/cat/three.jpg = train/cat/three_again.jpg"],
    "near_duplicate": ["train/cat/five.jpg = train/cat/five_dark.jpg"],
    "wrong_extension": ["train/cat/other.jpg"],
    "cmyk": ["train/cat/cmyk.jpg"],
    "grey": ["train/cat/grey.jpg"],
    "sixteen_bit": ["train/cat/deep.png"],
    "only_alpha": ["train/cat/logo.png"],
    "one_colour": [f"train/cat/plain_{level}.png" for level in range(4)],
    "dark": ["train/cat/night.png"],
    "alpha": ["train/cat/alpha.png"],
    "rotated": ["train/cat/turned.jpg"],
    "animated": ["train/cat/moving.gif"],
    "tiny": ["train/cat/small.png"],
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_what_is_wrong_is_found_by_name(ward, kind):
    _, code, kinds = ward
    assert code == 1 and kinds[kind] == EXPECTED[kind]


def checked(tmp_path, name, image, bits=16, **options):
    """The remarks of one file, by kind."""
    put(tmp_path / name, image, **options)
    return dict(checkup.examine_file(Example(name, 0, str(tmp_path / name)), bits).remarks)


def deep_png(image, bits):
    return cv2.imencode(".png", image.astype(np.uint16) << bits - 8)[1].tobytes()


def test_dark_images_of_16_bits_are_dark_at_the_bits_in_use_only(tmp_path):
    image = deep_png(photograph(0), 12)
    largest = int(photograph(0).max()) << 4
    assert checked(tmp_path, "a.png", image)["dark"].endswith(
        f"; of 16 bits, the largest sample is {largest:,}, 65,535 is white"
    )
    assert checked(tmp_path, "a.png", image, bits=12) == {"sixteen_bit": ""}
    assert checked(tmp_path, "b.png", deep_png(photograph(0), 16)) == {"sixteen_bit": ""}


@pytest.mark.parametrize("level", [checkup.DARK - 1, checkup.DARK])
def test_an_image_is_dark_below_a_stated_mean(tmp_path, level):
    image = np.full((80, 100, 3), level, np.uint8)
    image[::2] += 1
    image[1::2] -= 1
    found = checked(tmp_path, "a.png", image)
    expected = {"dark": "mean 7.0 of 255"} if level < checkup.DARK else {}
    assert found == expected


def test_a_colour_is_named_in_the_order_that_people_use(tmp_path):
    image = np.full((80, 100, 3), (1, 2, 3), np.uint8)
    assert checked(tmp_path, "a.png", image) == {"one_colour": "red 1, green 2, blue 3"}


SHAPE = np.zeros((80, 100), np.uint8)
SHAPE[20:60, 30:70] = 200
HALF = np.full((80, 100), 128, np.uint8)
BLACK = np.zeros((80, 100, 3), np.uint8)


@pytest.mark.parametrize(
    ("colours", "alpha", "kinds"),
    [
        (photograph(0), np.full_like(HALF, 255), []),
        (photograph(0), HALF, ["alpha"]),
        (photograph(0), SHAPE, ["alpha"]),
        (BLACK, SHAPE, ["only_alpha"]),
        (BLACK + np.uint8(255), SHAPE, ["only_alpha"]),
        (photograph(0) // 40, SHAPE, ["only_alpha"]),
        (BLACK, HALF, ["alpha", "one_colour"]),
        (BLACK, np.full_like(HALF, 255), ["one_colour"]),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_transparency_is_said_where_something_is_transparent(tmp_path, name, colours, alpha, kinds):
    options = {"lossless": True, "exact": True} if name == "a.webp" else {}
    found = checked(tmp_path, name, np.dstack([colours, alpha]), **options)
    assert sorted(found) == kinds


def test_a_transparent_palette_is_seen(tmp_path):
    palette = Image.fromarray(photograph(0)).quantize(8)
    assert checked(tmp_path, "a.png", palette) == {}
    assert checked(tmp_path, "a.png", palette, transparency=0) == {"alpha": ""}
    assert checked(tmp_path, "a.gif", palette, transparency=0) == {"alpha": ""}


def test_advice_for_what_is_refused_fits_it(tmp_path):
    put(tmp_path / "a.jpg", b"%PDF-1.7\n" + bytes(99))
    put(tmp_path / "b.heic", jpeg_bytes(0)[:99])
    put(tmp_path / "c.jpg", b"")
    found = [
        checkup.examine_file(Example(name, 0, str(tmp_path / name)))
        for name in ("a.jpg", "b.heic", "c.jpg")
    ]
    assert [each.kind for each in found] == ["no_image", "truncated", "no_image"]
    assert found[0].reason.startswith("a PDF document, expected JPEG")
    assert found[2].reason.startswith("an empty file")
    assert "save it as JPEG or PNG" in KINDS["no_image"].advice


NAMES = {
    "JPEG": ["a.jpg", "a.JPEG", "a.jpe", "a.jfif", "a.mpo"],
    "HEIF": ["a.heic", "a.HEIC", "a.heif", "a.hif"],
    "PNG": ["a.png", "no extension"],
}


@pytest.mark.parametrize("format", NAMES)
def test_names_of_a_format_are_not_wrong(tmp_path, format):
    for name in NAMES[format]:
        assert checked(tmp_path, name, photograph(0), format=format) == {}
    said = {"HEIF": "HEIC"}.get(format, format)
    found = checked(tmp_path, "a.bmp", photograph(0), format=format)
    assert found == {"wrong_extension": f"is a {said}"}


def test_nothing_else_is_found(ward):
    assert set(ward[2]) == set(EXPECTED)


def test_every_kind_has_a_test():
    elsewhere = {"unused_name", "too_few_classes", "no_validation", "too_many_bad", "series"}
    assert set(EXPECTED) | elsewhere | set(OF_SHARDS) == set(KINDS)


def test_what_was_passed_over_is_told(photos, tmp_path):
    root = shutil.copytree(photos, tmp_path / "x")
    put(root / "class_0/notes.csv", b"")
    put(root / "class_0/@eaDir/1.jpg", jpeg_bytes(0))
    put(root / "class_1/old/1.jpg", jpeg_bytes(77))
    (root / "class_2/gone.jpg").symlink_to("/not/mounted.jpg")
    code, text = examined(root)
    passed_over = "1 .csv, 1 unreadable file, folders @eaDir"
    assert code == 0 and text.splitlines()[:4] == [
        "classes: class_0 (18), class_1 (19), class_2 (18)",
        "joined, each into one class: class_1 (old)",
        f"passed over: {passed_over}",
        "",
    ]
    report = json.loads(examined(root, "--json")[1])
    assert ", ".join(report["passed_over"]) == passed_over
    assert report["joined"] == "class_1 (old)"


def test_a_sound_folder_has_no_findings(photos):
    code, text = examined(photos)
    assert code == 0
    assert text.splitlines() == [
        "classes: class_0 (18), class_1 (18), class_2 (18)",
        "",
        "split           images  unusable  classes  smallest  largest",
        "train               54         0        3        18       18",
        "validation           6         0        3         2        2",
        "",
        "verdict: nothing that would spoil a training (nothing found)",
    ]
    assert found(photos) == (0, {})


def test_text_shows_the_first_few_and_with_all_every_one(tmp_path):
    for seed in range(40):
        put(tmp_path / f"class_{seed % 2}" / f"{seed}.png", photograph(seed))
        if seed < 10:
            put(tmp_path / "class_0" / f"bad\x1b_{seed}.png", b"no image")
    code, short = examined(tmp_path)
    assert (
        code == 0
        and "warning: file that is no image of a known format: 10 (get the file again" in short
    )
    assert short.count("not an image") == 3 and "    ... 7 more: --all shows them\n" in short
    code, long = examined(tmp_path, "--all")
    assert long.count("not an image") == 10 and "more" not in long
    assert "\x1b" not in long  # a name is no command to the terminal
    assert long.splitlines()[-1] == ("verdict: nothing that would spoil a training (10 warnings)")
    put(tmp_path / "class_0" / "bad_10.png", b"no image")
    code, kinds = found(tmp_path)
    assert code == 1 and len(kinds["too_many_bad"]) == 1


def test_what_conversion_refuses_is_found_too(tmp_path):
    put(tmp_path / "cat/1.jpg", jpeg_bytes(1))
    put(tmp_path / "dog/plan.dwg", b"AC1032")
    code, kinds = found(tmp_path)
    assert code == 1
    assert {"too_few_classes", "no_validation", "empty_class"} <= set(kinds)
    (tmp_path / "dog/plan.dwg").unlink()
    code, kinds = found(tmp_path)
    assert code == 1 and set(kinds) == {"too_few_classes", "no_validation", "few_images"}
    assert "no_validation" not in found(tmp_path, "--validation_fraction=0")[1]
    with pytest.raises(ValueError, match="found 1 class"):
        open_source(tmp_path, validation_fraction=0)


class Bomb(Example):
    """Kills the worker that unpickles it, as a decoder's crash would."""

    __slots__ = ()

    def __reduce__(self):
        return os.abort, ()


class Endless(Example):
    """Computes for ever where it is read, as a decoder in a loop."""

    __slots__ = ()

    def __reduce__(self):
        return functools.partial(SimpleNamespace, read=functools.partial(sum, range(10**15))), ()


def test_a_decoder_that_crashes_or_hangs_costs_one_file(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "SECONDS_PER_IMAGE", 1)
    source = open_source(photos)
    splits = source.list_splits(tmp_path)
    splits["train"][5] = Bomb("bomb.jpg", 0, "bomb.jpg")
    splits["train"][9] = Endless("never.jpg", 1, "never.jpg")
    stopped = Source("x", source.class_names, "", lambda scratch: splits)
    report = doctor.examine_source(stopped, workers=1)
    assert [finding.places[0].image for finding in report.findings] == ["bomb.jpg", "never.jpg"]
    assert {finding.kind for finding in report.findings} == {"damaged"}
    train = report.splits["train"]
    assert (train.images, train.unusable, sum(train.classes)) == (54, 2, 52)


def test_nothing_is_made_of_the_names_in_an_archive(tmp_path):
    folder = tmp_path / "a" / "b" / "ILSVRC2012"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for number, wnid in enumerate(("n01440764", "n01443537")):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for i in range(10):
                    data = jpeg_bytes(10 * number + i)
                    member = tarfile.TarInfo(f"../../{wnid}_{i}.JPEG")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
            member = tarfile.TarInfo(f"{wnid}.tar")
            member.size = len(inner.getvalue())
            outer.addfile(member, io.BytesIO(inner.getvalue()))
    before = contents(tmp_path)
    code, kinds = found(folder)
    assert contents(tmp_path) == before
    assert (code, kinds) == (0, {"few_images": ["goldfish", "tench"]})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["digits", "--workers=0"], "expected --workers of at least 1"),
        (["digits", "--validation_fraction=2"], "expected validation_fraction in"),
        (["digits", "--jsn"], "unrecognized arguments: --jsn"),
    ],
)
def test_wrong_input_is_one_line(words, message, capfd):
    with pytest.raises(SystemExit) as end:
        doctor.main(words)
    out, err = capfd.readouterr()
    assert end.value.code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


@pytest.mark.parametrize(
    ("file", "message"),
    [("dataset.json", "dataset.json is damaged"), ("train-00000-of-00001", "with a dataset.json")],
)
def test_shards_that_nobody_described_are_wrong_input(file, message, tmp_path, capfd):
    (tmp_path / file).write_bytes(b"?")
    with pytest.raises(SystemExit) as end:
        doctor.main([str(tmp_path)])
    err = capfd.readouterr().err
    assert end.value.code == 2 and err.startswith("error: ") and message in err


@pytest.fixture(scope="module")
def converted(photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("shards") / "photos"
    conversion.convert(
        open_source(photos), output, Storage(short_side=40), shards=2, workers=1, progress=False
    )
    return output


TRAIN = "train-00000-of-00002.tfrecord"


def rewritten(folder, change):
    """Writes the first shard anew, description and all, with another record 3."""
    path = folder / TRAIN
    memory = memoryview(path.read_bytes())
    frames, _ = records.frames(memory)
    rows = [bytes(memory[begin:end]) for begin, end in frames]
    image = records.locate_image(memoryview(rows[3]), 0, len(rows[3]))
    values = image._asdict()
    values["encoded"] = rows[3][values.pop("begin") : values.pop("end")]
    rows[3] = records.example_bytes(**(values | change(values)))
    facts = records.write_shard(path, rows)
    description = json.loads((folder / "dataset.json").read_text())
    shard = description["splits"]["train"]["shards"][0]
    shard |= dict(zip(("examples", "bytes", "sha256"), facts, strict=True))
    (folder / "dataset.json").write_text(json.dumps(description))


def flipped(folder):
    data = bytearray((folder / TRAIN).read_bytes())
    frames, _ = records.frames(memoryview(data))
    data[sum(frames[3]) // 2] ^= 4
    (folder / TRAIN).write_bytes(data)


def cut_at(place):
    def cut(folder):
        data = (folder / TRAIN).read_bytes()
        frames, _ = records.frames(memoryview(data))
        (folder / TRAIN).write_bytes(data[: place(frames)])

    return cut


OF_SHARDS = {
    "missing_shard": (
        lambda folder: (folder / TRAIN).unlink(),
        {"missing_shard": [TRAIN], "few_images": ["class_0"]},
    ),
    "wrong_sha256": (
        flipped,
        {"wrong_sha256": [TRAIN], "damaged_record": [f"{TRAIN} 3"]},
    ),
    "wrong_count": (
        cut_at(lambda frames: frames[20][1] + 4),
        {"wrong_size": [TRAIN], "wrong_count": [TRAIN]},
    ),
    "damaged_record": (
        cut_at(lambda frames: frames[20][1] - 9),
        {"wrong_size": [TRAIN], "wrong_count": [TRAIN], "damaged_record": [f"{TRAIN} 20"]},
    ),
    "wrong_size": (
        cut_at(lambda frames: 0),
        {"wrong_size": [TRAIN], "wrong_count": [TRAIN], "few_images": ["class_0"]},
    ),
    "label_out_of_range": (
        lambda folder: rewritten(folder, lambda record: {"label": 3}),
        {"label_out_of_range": [f"{TRAIN} 3"]},
    ),
    "undecodable_record": (
        lambda folder: rewritten(folder, lambda record: {"encoded": record["encoded"][:-99]}),
        {"undecodable_record": [f"{TRAIN} 3"]},
    ),
}


@pytest.mark.parametrize("kind", OF_SHARDS)
def test_damage_to_shards_is_found_by_shard_and_record(converted, tmp_path, kind):
    damage, expected = OF_SHARDS[kind]
    folder = shutil.copytree(converted, tmp_path / "shards")
    damage(folder)
    before = contents(folder)
    assert found(folder) == (1, expected)
    assert contents(folder) == before


def test_a_shard_of_zeros_is_not_taken_for_a_million_records(converted, tmp_path):
    folder = shutil.copytree(converted, tmp_path / "shards")
    size = (folder / TRAIN).stat().st_size
    (folder / TRAIN).write_bytes(bytes(size))
    code, kinds = found(folder)
    assert code == 1 and kinds["wrong_sha256"] == kinds["wrong_count"] == [TRAIN]
    assert len(kinds["damaged_record"]) == 28  # one more than there should be


def test_a_record_that_states_another_size_is_found(converted, tmp_path):
    folder = shutil.copytree(converted, tmp_path / "shards")
    rewritten(folder, lambda record: {"height": record["height"] + 1})
    assert found(folder) == (1, {"undecodable_record": [f"{TRAIN} 3"]})


def test_sound_shards_have_no_findings(converted, photos, tmp_path):
    assert found(converted) == (0, {})
    raw = Storage(short_side=40, encoding="raw")
    conversion.convert(open_source(photos), tmp_path / "raw", raw, workers=1, progress=False)
    assert found(tmp_path / "raw") == (0, {})


def test_copies_are_found_in_shards_too(photos, tmp_path):
    root = shutil.copytree(photos, tmp_path / "photos")
    put(root / "class_1" / "copy.jpg", (root / "class_0" / "0.jpg").read_bytes())
    source = open_source(root, validation_fraction=0)
    conversion.convert(source, tmp_path / "shards", Storage(40), workers=1, progress=False)
    code, kinds = found(tmp_path / "shards")
    assert code == 1 and list(kinds) == ["contradiction"] and len(kinds["contradiction"]) == 1


def test_near_duplicates_are_found_among_many_images():
    rng = np.random.default_rng(0)
    images = [photograph(seed, 64, 64) for seed in range(1500)]
    changes = (
        smaller,
        lambda image: cv2.convertScaleAbs(image, alpha=0.9, beta=9),
        lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [1, 40])[1], cv2.IMREAD_COLOR),
        lambda image: image[1:, :-1],
    )
    chosen = rng.choice(1500, 60, replace=False)
    images += [changes[i % 4](images[original]) for i, original in enumerate(chosen)]
    hashes = np.array([duplicates.difference_hash(image) for image in images], np.uint64)
    thumbnails = np.array([duplicates.thumbnail(image) for image in images])
    groups = duplicates.near(hashes, thumbnails)
    assert sorted(groups) == sorted([original, 1500 + i] for i, original in enumerate(chosen))
    assert duplicates.near(hashes[:1], thumbnails[:1]) == []
    assert duplicates.near(hashes[:0], thumbnails[:0]) == []


def test_a_large_group_of_near_images_is_a_series():
    def gathered(images):
        places = [Place("train" if i % 2 else "validation", str(i)) for i in range(images)]
        gathering = survey.Survey(
            ["a", "b"], ["train", "validation"], places, [0] * images, folders=True
        )
        scene = photograph(0, 64, 64)
        for i in range(images):
            image = cv2.convertScaleAbs(scene, beta=i % 20)
            thumbnail = duplicates.thumbnail(image).tobytes()
            gathering.add(Checkup((), b"%d" % i, duplicates.difference_hash(image), thumbnail))
        return [(finding.kind, len(finding.places)) for finding in gathering.copies()]

    assert gathered(survey.SERIES) == [("near_leak", survey.SERIES)]
    assert gathered(survey.SERIES + 1) == [("series", survey.SERIES + 1)]


def test_a_split_without_a_sound_image_lacks_every_class():
    places = [Place("train", "0"), Place("train", "1"), Place("validation", "2")]
    gathering = survey.Survey(["a", "b"], ["train", "validation"], places, [0, 1, 0], folders=True)
    for result in (Checkup((), b"0", None, None), Checkup((), b"1", None, None)):
        gathering.add(result)
    gathering.add(Unsound("unreadable", "why"))
    lacking = [each for each in gathering.classes() if each.kind == "missing_in_split"]
    assert [(each.class_name, each.split) for each in lacking] == [
        ("a", "validation"),
        ("b", "validation"),
    ]


@pytest.mark.parametrize(("folders", "kind"), [(True, "empty_class"), (False, "unused_name")])
def test_a_name_without_images_is_an_error_where_it_is_a_folder(folders, kind):
    gathering = survey.Survey(["a", "b"], ["train"], [Place("train", "0")], [0], folders=folders)
    gathering.add(Checkup((), b"0", None, None))
    found = [finding for finding in gathering.classes() if finding.class_name == "b"]
    assert [finding.kind for finding in found] == [kind]


def test_images_without_a_label_contradict_nobody():
    places = [Place("train", "0"), Place("test", "1")]
    gathering = survey.Survey(["a", "b"], ["train", "test"], places, [0, -1], folders=True)
    for _ in places:
        gathering.add(Checkup((), b"same", None, None))
    assert [finding.kind for finding in gathering.copies()] == ["leak"]
    test = gathering.splits()["test"]
    assert (test.images, test.unusable, test.classes) == (1, 0, [0, 0])


def test_a_jpeg_with_a_preview_is_cut_short_where_its_own_end_is_missing():
    whole = jpeg_bytes(0)
    preview = b"\xff\xe1" + (len(whole) + 2).to_bytes(2) + whole
    both = whole[:2] + preview + whole[2:]
    assert jpeg.has_end(whole) and jpeg.has_end(both)
    assert not jpeg.has_end(whole[:-2]) and not jpeg.has_end(both[:-2])


def test_a_finding_names_a_record_in_a_line():
    place = Place("train", "cat/1.jpg", "train-00000-of-00001.tfrecord", 0)
    line = "train-00000-of-00001.tfrecord record 0 cat/1.jpg (train): wrong checksum"
    assert str(Finding("damaged_record", (place,), "wrong checksum")) == line


def test_a_description_is_read_without_its_shards(converted, tmp_path):
    shutil.copy(converted / "dataset.json", tmp_path)
    described = datasets.described(tmp_path)
    assert described.num_examples("train") == 54
    digest = hashlib.sha256((converted / TRAIN).read_bytes()).hexdigest()
    assert described.shards("train")[0].sha256 == digest
