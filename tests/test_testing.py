"""`test.py`: what it prints and leaves, and that every image counts once."""

import csv
import itertools
import json
import re
import shutil
import tarfile

import cv2
import keras
import numpy as np
import pytest
import sklearn.metrics
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_pipeline import FORMATS, encoded, photo, write_dataset

from data import pipeline
from data.images import decode
from data.images.resized import Resized, resize
from data.shards import records
from data.sources import imagenet
from engine.evaluator import predict
from inference import loading, testsets
from report import scores


@pytest.fixture(scope="module")
def run(command, photographs, tmp_path_factory):
    """A run on photographs that has learnt next to nothing."""
    run_dir = tmp_path_factory.mktemp("testing") / "run"
    words = [f"--data={photographs}", "--model=lenet5", "--batch_size=8", "--epochs=2"]
    done = command("train.py", f"--run_dir={run_dir}", *words, "--learning_rate=0.001")
    assert done.returncode == 0, done.stderr
    return run_dir


def outcome(command, *words):
    done = command("test.py", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def result(run_dir):
    found = json.loads((run_dir / "test.json").read_text())
    return found, scores.load(run_dir / "test" / "predictions.npz")


def test_the_figures_are_those_of_the_predictions(command, run):
    lines = outcome(command, run, "--split=train", "--batch_size=7")
    found, predictions = result(run)
    chances, labels = np.exp(predictions.log_probabilities), predictions.labels
    assert found["examples"] == len(set(predictions.filenames)) == 42
    expected = sklearn.metrics.accuracy_score(labels, chances.argmax(axis=1))
    assert found["top1_accuracy"] == pytest.approx(expected)
    assert found["loss"] == pytest.approx(sklearn.metrics.log_loss(labels, chances), rel=1e-6)
    f1 = sklearn.metrics.f1_score(labels, chances.argmax(axis=1), average="macro")
    assert found["mean_f1"] == pytest.approx(f1)
    low, high = found["top1_interval"]
    intervals = f"95 % intervals: top-1 {100 * low:.2f} to {100 * high:.2f} %, "
    assert any(line.startswith(intervals) for line in lines)
    assert lines[-1] == f"top-1 {100 * expected:.2f} %  top-5 100.00 %  (n = 42)"
    assert re.fullmatch(r"[\d,]+ images/s", lines[-2])


def test_everything_is_left_in_the_run_folder(command, run):
    outcome(command, run, "--split=train")
    _, predictions = result(run)
    with open(run / "test" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["filename"] for row in rows] == list(predictions.filenames)
    assert [row["label"] for row in rows] == [f"class_{n}" for n in predictions.labels]
    with open(run / "test" / "confusion_matrix.csv", newline="") as file:
        _, *matrix = csv.reader(file)
    assert np.sum([list(map(int, row[1:])) for row in matrix]) == 42
    with open(run / "test" / "classes.csv", newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)][-1] == "(mean)"
    for name in ("test/confusion_matrix", "test/reliability", "confusion_matrix", "results"):
        assert cv2.imread(str(run / f"{name}.png")).std() > 0, name
    listed = json.loads((run / "test" / "mistakes" / "mistakes.json").read_text())
    assert 0 < len(listed) <= 24
    for row in listed:
        assert row["label"] != row["prediction"]
        assert cv2.imread(str(run / "test" / "mistakes" / row["picture"])) is not None
    board = EventAccumulator(str(run / "test"))
    board.Reload()
    shown = set(board.Tags()["tensors"])
    assert {"top1_accuracy", "confusion_matrix", "reliability", "mistakes/00"} <= shown


def test_the_pictures_are_those_of_the_mistakes(command, run, photographs):
    outcome(command, run, "--split=train")
    for row in json.loads((run / "test" / "mistakes" / "mistakes.json").read_text())[:3]:
        kept = cv2.imread(str(run / "test" / "mistakes" / row["picture"]))
        source = cv2.imread(str(photographs / row["filename"]))
        size = kept.shape[1::-1]
        source = cv2.resize(source, size, interpolation=cv2.INTER_AREA)
        assert np.abs(kept.astype(int) - source).mean() < 12, row


@pytest.mark.slow
def test_two_replicas_count_every_image_once(command, run):
    outcome(command, run, "--split=train", "--batch_size=10")
    alone, predictions = result(run)
    words = ["test.py", str(run), "--split=train", "--batch_size=10", "--devices=2"]
    done = command(*words)
    assert done.returncode == 0, done.stderr
    together, again = result(run)
    assert list(again.filenames) == list(predictions.filenames)
    np.testing.assert_allclose(again.log_probabilities, predictions.log_probabilities, atol=1e-5)
    assert together["examples"] == alone["examples"]


@pytest.mark.parametrize("weights", [[1] * 10, [2, 1, 1, 2, 1, 1]], ids=len)
def test_crops_are_averaged_by_their_weights(command, run, weights):
    crops = len(weights)
    outcome(command, run, "--split=train", f"--crops={crops}")
    found, predictions = result(run)
    assert found["crops"] == crops
    network = loading.open_network(str(run))
    dataset = testsets.Split(opened(network), "train")
    batches = dataset.batches(size=32, crops=crops, batch_size=6, threads=1, replicas=1)
    means = []
    for views, *_ in batches.as_numpy_iterator():
        each = [np.exp(predict(network.model, views[:, n : n + 1])) for n in range(crops)]
        means.extend(np.average(each, axis=0, weights=weights))
    np.testing.assert_allclose(np.exp(predictions.log_probabilities), means[:42], atol=1e-6)
    keras.utils.clear_session()


def opened(network):
    from data import opening

    return opening.open_dataset(network.origin.data, image_size=network.image_size)


def test_several_sizes_are_averaged(command, tmp_path, photographs):
    run_dir = tmp_path / "run"
    words = [f"--data={photographs}", "--model=all_cnn_c", "--batch_size=8", "--max_steps=1"]
    assert command("train.py", f"--run_dir={run_dir}", *words).returncode == 0
    each = []
    for size in ("32", "24", "32,24"):
        outcome(command, run_dir, "--split=train", f"--image_size={size}", "--crops=2")
        found, predictions = result(run_dir)
        each.append(np.exp(predictions.log_probabilities))
    assert found["image_size"] == [32, 24] and found["crops"] == 2
    np.testing.assert_allclose(each[2], (each[0] + each[1]) / 2, atol=1e-6)
    assert not (run_dir / "calibration.json").exists()
    done = command("test.py", run_dir, "--image_size=big")
    assert done.returncode == 2 and "--image_size expects pixels" in done.stderr


def test_several_runs_are_compared_and_put_together(command, run, tmp_path):
    other = tmp_path / "other"
    settings = json.loads((run / "run.json").read_text())["flags"]
    words = [f"--data={settings['data']}", "--model=lenet5", "--batch_size=8", "--epochs=1"]
    assert command("train.py", f"--run_dir={other}", *words, "--seed=3").returncode == 0
    lines = outcome(command, run, other, "--split=train")
    first, second = result(run)[1], result(other)[1]
    found = scores.compare(first, second)
    expected = f"{found.only_first} images only the first gets right, {found.only_second} only the"
    assert expected in lines[-2] and "(McNemar)" in lines[-2]
    together = scores.fraction(scores.ensemble([first, second]).in_top(1)).value
    assert lines[-1].startswith(f"ensemble of 2: top-1 {100 * together:.2f} %")


def test_a_folder_is_tested_as_it_is(command, run, photographs, tmp_path):
    folder = tmp_path / "photographs"
    shutil.copytree(photographs, folder)
    lines = outcome(command, run, f"--images={folder}", "--batch_size=10")
    found, predictions = result(run)
    assert found["examples"] == 48 and (found["split"], found["data"]) == ("images", str(folder))
    outcome(command, run, "--split=train")
    _, converted = result(run)
    by_name = dict(zip(predictions.filenames, predictions.log_probabilities, strict=True))
    for name, row in zip(converted.filenames, converted.log_probabilities, strict=True):
        np.testing.assert_allclose(by_name[name], row, atol=1e-5, err_msg=name)
    (folder / "class_0").rename(folder / "unheard_of")
    (folder / "class_1" / "bad.jpg").write_text("no image")
    lines = outcome(command, run, f"--images={folder}")
    assert lines[0].startswith("not counted: 16 images in folders that are no class")
    assert "not counted: 1 unreadable: class_1/bad.jpg: " in lines[1]
    assert lines[-1].endswith("(n = 32)")


@pytest.mark.parametrize(
    "folders, complaint",
    [(["a", "b"], "has the name of a class"), ([], "expected class folders"), (None, "no such")],
)
def test_folders_that_cannot_be_tested(folders, complaint, command, run, tmp_path):
    place = tmp_path / "images"
    for folder in folders or []:
        (place / folder).mkdir(parents=True)
        shutil.copy(ROOT / "data" / "samples" / "digit_3.png", place / folder)
    if folders is not None:
        place.mkdir(exist_ok=True)
    before = (run / "test.json").read_text() if (run / "test.json").exists() else None
    done = command("test.py", run, f"--images={place}")
    assert done.returncode == 2 and complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    after = (run / "test.json").read_text() if (run / "test.json").exists() else None
    assert before == after


def test_the_temperature_of_the_validation_images_is_used(command, run, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(run, run_dir)
    outcome(command, run_dir)
    found, predictions = result(run_dir)
    kept = json.loads((run_dir / "calibration.json").read_text())
    assert kept["temperature"] == found["temperature"] == scores.temperature(predictions)
    network = loading.open_network(str(run_dir))
    assert network.temperature == kept["temperature"]
    outcome(command, run_dir, "--split=train")
    assert result(run_dir)[0]["temperature"] == kept["temperature"]
    views = np.zeros([1, 1, 32, 32, 3], np.uint8)
    logits = network.model(np.zeros([1, 32, 32, 3], "float32"))["logits"].numpy()
    softened = keras.ops.softmax(logits / network.temperature)
    seen = np.exp(predict(network.model, views, network.temperature))
    np.testing.assert_allclose(seen, softened, atol=1e-6)
    (run_dir / "calibration.json").write_text('{"temperature": 0, "digest": 1}')
    assert loading.open_network(str(run_dir)).temperature == 1  # of another checkpoint
    (run_dir / "calibration.json").write_text("{")
    done = command("test.py", run_dir)
    assert (
        done.returncode == 2
        and "calibration.json is damaged" in done.stderr
        and "remove it" in done.stderr
    )
    keras.utils.clear_session()


@pytest.mark.parametrize("encoding", FORMATS)
def test_pictures_of_a_split_are_as_they_are_stored(tmp_path, encoding):
    images = [photo(60, 45, seed) for seed in range(4)]
    split = testsets.Split(write_dataset(tmp_path, images, encoding=encoding, offset=1), "test")
    assert split.filenames() == ["0", "1", "2", "3"]
    stored = [
        image if format == "RAW" else decode.decode(encoded(image, format))
        for image, format in zip(images, itertools.cycle(FORMATS[encoding]), strict=False)
    ]
    np.testing.assert_array_equal(split.pictures([2, 0, 1]), [stored[n] for n in (2, 0, 1)])
    for number, (image, label) in enumerate(split.whole(45)):
        assert label == number
        np.testing.assert_array_equal(image, stored[number])
    assert next(split.whole(90))[0].shape == (120, 90, 3)


def test_a_split_is_read_once_many_records_at_a_time(tmp_path, monkeypatch):
    images = [photo(12, 12, seed) for seed in range(150)]
    split = testsets.Split(write_dataset(tmp_path, images, shards=3), "test")
    sizes, parse = [], records.parse

    def counted(serialized, **options):
        sizes.append(np.size(serialized))
        return parse(serialized, **options)

    monkeypatch.setattr(records, "parse", counted)
    assert [label for _, label in split.whole(12)] == list(range(150))
    assert split.filenames() == list(map(str, range(150)))
    assert sum(sizes) == 150 and len(sizes) < 10
    for picture, number in zip(split.pictures([149, 3, 70]), (149, 3, 70), strict=True):
        np.testing.assert_array_equal(picture, images[number])
    assert sum(sizes) == 153


def test_views_of_a_folder_are_those_of_classify(photographs):
    """Both cut the same pixels out of the same file."""
    names = ["class_0", "class_1", "class_2"]
    network_storage = loading.decode.storage_for(32)
    folder = testsets.Folder(str(photographs), names, {32: network_storage}, 1)
    options = {"size": 32, "crops": 1, "batch_size": 5, "threads": 1, "replicas": 2}
    batches = list(folder.batches(**options).as_numpy_iterator())
    assert len(batches) == 10 and sum(weights.sum() for *_, weights in batches) == 48
    path = photographs / folder.filenames()[0]
    stored = loading.decode.store(path.read_bytes(), network_storage)
    (expected,) = pipeline.views_of([stored], size=32, crops=1)
    np.testing.assert_array_equal(batches[0][0][0], expected)


def test_every_size_of_views_and_of_whole_images_is_resized_once(photographs):
    names = ["class_0", "class_1", "class_2"]
    resized = Resized(64, 73, "bicubic")
    storages = {size: resized.at(size) for size in (64, 96)}
    folder = testsets.Folder(str(photographs), names, storages, 1)
    for size, short_side in ((64, 73), (96, 110)):
        options = {"size": size, "crops": 1, "batch_size": 1, "threads": 1, "replicas": 1}
        first, *_ = next(iter(folder.batches(**options)))
        whole, label = next(iter(folder.whole(size)))
        path = photographs / folder.filenames()[0]
        photo = decode.decode(path.read_bytes())

        def scaled(side, photo=photo):
            return resize(photo, Resized(side, side, "bicubic"))

        top, left = ((side - size) // 2 for side in scaled(short_side).shape[:2])
        expected = scaled(short_side)[top : top + size, left : left + size]
        np.testing.assert_array_equal(first[0, 0], expected)
        np.testing.assert_array_equal(whole, scaled(size))
        assert label == 0


@pytest.mark.parametrize("packed", [False, True])
def test_flat_validation_images_are_labelled_by_the_development_kit(tmp_path, packed):
    images, kit = tmp_path / imagenet.VALIDATION, tmp_path / imagenet.DEVKIT / "data"
    images.mkdir()
    for number, colour in enumerate((200, 30, 120), start=1):
        pixels = np.full((40, 50, 3), colour, np.uint8)
        cv2.imwrite(str(images / f"ILSVRC2012_val_{number:08d}.JPEG"), pixels)
    with pytest.raises(ValueError, match="no labels; expected .* beside it"):
        testsets.Folder(str(images), imagenet.class_names(), {32: decode.storage_for(32)}, 1)
    kit.mkdir(parents=True)
    (kit / imagenet.GROUND_TRUTH).write_text("490\n361\n490\n")
    if packed:
        with tarfile.open(f"{images}.tar", "w") as archive:
            for path in sorted(images.iterdir()):
                archive.add(path, path.name)
        shutil.rmtree(images)
        images = images.with_suffix(".tar")
    folder = testsets.Folder(str(images), imagenet.class_names(), {32: decode.storage_for(32)}, 1)
    found = {}
    for image, label in folder.whole(32):
        found.setdefault(folder.class_names[label], []).append(int(image.mean()))
    wnids = {row["ilsvrc2012_id"]: row["name"] for row in imagenet._rows().values()}
    assert found == {wnids["490"]: [200, 120], wnids["361"]: [30]}
    assert sorted(folder.filenames()) == [f"ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 2, 3)]


def test_whole_images_are_seen_by_the_network_as_a_convolution(command, run, photographs):
    outcome(command, run, "--split=train", "--dense", "--image_size=40")
    found, predictions = result(run)
    assert found["dense"] and found["examples"] == 42
    outcome(command, run, f"--images={photographs}", "--dense", "--image_size=40", "--crops=2")
    _, mirrored = result(run)
    assert len(mirrored.labels) == 48
    assert np.abs(mirrored.log_probabilities[:42] - predictions.log_probabilities).max() > 1e-4
    done = command("test.py", run, "--dense", "--crops=10")
    assert done.returncode == 2 and "expected --crops=1 or 2" in done.stderr
