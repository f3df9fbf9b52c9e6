"""classify.py: what may be named, and what comes out."""

import csv
import dataclasses
import json
import os
import sys
import threading

import cv2
import keras
import numpy as np
import pytest
from conftest import ROOT
from test_video import film

from data.sources import sources
from inference import classifier, embeddings, inputs, loading
from models.tools import graphs

WEIGHTS = ROOT / "weights" / "lenet5_digits.safetensors"
SAMPLES = ROOT / "data" / "samples"
THREE = SAMPLES / "digit_3.png"


@pytest.fixture(scope="module")
def network():
    return loading.open_network(None, loading.Weights(checkpoint=str(WEIGHTS)))


def classified(network, paths, **options):
    with classifier.Classifier(network, processes=1, **options) as image_classifier:
        answers = list(image_classifier.answers(inputs.list_images(map(str, paths))))
        return answers, [image_classifier.described(answer) for answer in answers]


def run(command, *words):
    done = command("classify.py", f"--checkpoint={WEIGHTS}", *words)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def folder(tmp_path):
    for name in ("b/2.png", "a/1.png", "a/notes.txt", "[odd].png", ".hidden.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(THREE.read_bytes())
    return tmp_path / "photos"


@pytest.fixture
def come_on_stdin(tmp_path, monkeypatch):
    """Puts bytes where stdin is read from."""

    def put(data):
        (tmp_path / "stdin").write_bytes(data)
        monkeypatch.setattr(sys, "stdin", open(tmp_path / "stdin"))

    yield put
    sys.stdin.close()


@pytest.fixture
def pipe(monkeypatch):
    """What is written there comes on stdin; it ends after 20 s, for who would wait for ever."""
    reading, writing = os.pipe()
    with open(reading) as stdin, open(writing, "wb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stdin", stdin)
        end = threading.Timer(20, pipe.close)
        end.start()
        yield pipe
        end.cancel()


def names(folder, *given):
    return [os.path.relpath(image.path, folder) for image in inputs.list_images(map(str, given))]


def test_patterns_name_files(folder):
    assert names(folder, folder / "**" / "*.png") == ["[odd].png", "a/1.png", "b/2.png"]
    assert names(folder, folder / "a" / "*") == ["a/1.png", "a/notes.txt"]
    assert names(folder, folder / "?") == ["a/1.png", "b/2.png"]  # folders only: their images
    assert names(folder, folder / "[odd].png") == ["[odd].png"]  # a file is called like that
    assert names(folder, folder / "*.none") == ["*.none"]  # said when it is read


@pytest.mark.parametrize("end", [b"\n", b"\0", b"\r\n"])
def test_paths_come_on_stdin(folder, end, come_on_stdin):
    paths = [os.fsencode(folder / name) for name in ("b/2.png", "none.png", "a")]
    come_on_stdin(end.join(paths) + end)
    assert names(folder, "-", folder / "b") == ["b/2.png", "none.png", "a/1.png", "b/2.png"]
    come_on_stdin(end.join(paths[:2]))
    assert names(folder, "-") == ["b/2.png", "none.png"]


def test_a_list_of_paths_may_begin_with_a_byte_order_mark(folder, come_on_stdin):
    come_on_stdin(b"\xef\xbb\xbf" + os.fsencode(folder / "b/2.png") + b"\r\n")
    assert names(folder, "-") == ["b/2.png"]


@pytest.mark.parametrize("end", [b"\n", b"\0"])
def test_a_path_on_stdin_is_answered_before_the_next_one_comes(network, end, pipe):
    paths = [os.fsencode(SAMPLES / f"digit_{digit}.png") for digit in range(3)]
    with classifier.Classifier(network, processes=2) as image_classifier:
        answers = image_classifier.answers(inputs.list_images(["-"]))
        for digit, path in enumerate(paths):
            pipe.write(path + end)
            answer = next(answers)
            assert (answer.image, network.class_names[answer.label]) == (path.decode(), str(digit))
        pipe.write(os.fsencode(SAMPLES) + end + b"none.png")  # a folder, and no end of a line
        for digit in range(10):
            assert next(answers).image == str(SAMPLES / f"digit_{digit}.png")
        assert not pipe.closed
        pipe.close()
        assert next(answers).error and list(answers) == []


def test_a_folder_that_only_stdin_names_and_is_closed_is_one_error_among_others(
    folder, come_on_stdin, monkeypatch
):
    def closed(place, passed_over):
        raise PermissionError(place)

    monkeypatch.setattr(sources, "open_images", closed)
    come_on_stdin(b"closed\nother\n")
    assert [image.path for image in inputs.list_images(["-"])] == ["closed", "other"]
    with pytest.raises(PermissionError):
        list(inputs.list_images(["closed"]))


def test_who_leaves_does_not_wait_for_stdin(network, pipe):
    with classifier.Classifier(network, processes=1) as image_classifier:
        answers = image_classifier.answers(inputs.list_images(["-"]))
        pipe.write(os.fsencode(THREE) + b"\n")
        assert not next(answers).error
        threads = [each for each in threading.enumerate() if "ThreadPool" in each.name]
    answers.close()
    assert threads
    for thread in threads:  # Python waits for them at its end
        thread.join(10)
        assert not thread.is_alive()


def test_what_a_folder_holds_besides_is_said_and_what_is_closed_fails(command, folder):
    done = run(command, folder, "--json")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3
    assert done.stderr == "passed over: 1 .txt\n"
    (folder / "a" / "private").symlink_to("/not/mounted")
    done = run(command, folder, "--json")
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 3
    assert done.stderr == "passed over: 1 .txt, folders private\n"


def test_many_images_are_one_graph_and_the_same_as_one_by_one(network, tmp_path):
    paths = sorted(SAMPLES.glob("digit_*.png")) * 14
    paths[70] = tmp_path / "none.png"
    with classifier.Classifier(network, processes=2) as image_classifier:
        images = list(inputs.list_images(map(str, paths)))
        answers = list(image_classifier.answers(images))
        again = list(image_classifier.answers(images[:3]))  # another size of batch
        assert image_classifier._predict.experimental_get_tracing_count() == 1
    assert [answer.image for answer in answers] == list(map(str, paths))
    assert [number for number, answer in enumerate(answers) if answer.error] == [70]
    for number, answer in enumerate(answers):
        if number != 70:
            expected = answers[number % 10].probabilities
            np.testing.assert_allclose(answer.probabilities, expected, atol=1e-6)
    for one, other in zip(answers, again, strict=False):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


def test_a_temperature_makes_it_less_sure(network):
    warm = dataclasses.replace(network, temperature=4.0)
    ((cold,), _), ((mild,), _) = (classified(each, [THREE]) for each in (network, warm))
    logits = np.log(cold.probabilities) / 4
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(mild.probabilities, expected, rtol=1e-4)


def test_below_the_threshold_it_is_unsure(network):
    for threshold, unsure in ((0.99, False), (0.99999, True)):
        _, (result,) = classified(network, [THREE], threshold=threshold)
        assert result["unsure"] is unsure and len(result["predictions"]) == 5
    _, (result,) = classified(network, [THREE])
    assert set(result) == {"image", "predictions"}


@pytest.mark.parametrize("crops", [1, 6, 10])
def test_features_are_what_the_classifier_gets(network, crops):
    (answer,), _ = classified(network, [THREE], features=True, explains=True, crops=crops)
    last = network.model.get_layer(graphs.classifiers(network.model)[0].name)
    assert answer.features.shape == (84,) and answer.heat.shape == (5, 5)
    assert answer.views.shape == (crops, 32, 32, 3) and answer.view.shape == (32, 32, 3)
    if crops == 1:
        kernel, bias = last.get_weights()
        logits = answer.features @ kernel + bias
        expected = np.exp(logits - logits.max())
        np.testing.assert_allclose(answer.probabilities, expected / expected.sum(), atol=1e-5)


def test_six_views_count_by_their_weights(network, command):
    (answer,), _ = classified(network, [THREE], features=True, crops=6)
    weights = [2, 1, 1, 2, 1, 1]
    model = keras.Model(
        network.model.input,
        [network.model.output["logits"], graphs.classifier_input(network.model)],
    )
    logits, features = (np.asarray(each) for each in model(answer.views.astype(np.float32)))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    each = powers / powers.sum(axis=1, keepdims=True)
    for found, of_views in ((answer.probabilities, each), (answer.features, features)):
        expected = np.average(of_views, axis=0, weights=weights)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    done = run(command, THREE, "--crops=6", "--json")
    (best, *_) = json.loads(done.stdout)["predictions"]
    assert best["class"] == network.class_names[answer.label]
    assert abs(best["probability"] - answer.probabilities.max()) < 1e-5


def test_features_are_written_whole_or_not_at_all(network, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        embeddings.Embeddings(tmp_path / "nowhere" / "f.npz", network.class_names)
    found = embeddings.Embeddings(tmp_path / "f.npz", network.class_names)
    answers, _ = classified(
        network, [THREE, tmp_path / "none", SAMPLES / "digit_7.png"], features=True
    )
    for answer in answers:
        found.add(answer)
    assert list(tmp_path.iterdir()) == []
    found.write()
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]
    with np.load(tmp_path / "f.npz") as file:
        assert file["features"].shape == (2, 84) and file["features"].dtype == np.float32
        assert file["images"].tolist() == [str(THREE), str(SAMPLES / "digit_7.png")]
        assert file["predictions"].tolist() == ["3", "7"] and file["frames"].tolist() == [-1, -1]
        assert file["probabilities"].shape == (2, 10)


def test_everything_at_once(command, tmp_path):
    path = film(tmp_path / "film.mp4")
    words = [THREE, path, tmp_path / "none.png", "--json", "--every=30", "--threshold=0.9"]
    words += [f"--explain={tmp_path}/why", f"--features={tmp_path}/f.npz"]
    done = run(command, *words)
    assert done.returncode == 1, done.stderr
    three, first, second, missing = map(json.loads, done.stdout.splitlines())
    assert set(three) == {"image", "predictions", "unsure", "explained"}
    assert three["explained"]["class"] == "3" and three["unsure"] is False
    assert (first["image"], first["frame"], first["seconds"]) == (str(path), 0, 0.0)
    assert (second["frame"], second["seconds"]) == (30, 3.0)
    assert set(missing) == {"image", "error"}
    for result in (three, first, second):
        assert cv2.imread(result["explained"]["picture"]).shape == (224, 224, 3)
    assert len(list((tmp_path / "why").iterdir())) == 3
    with np.load(tmp_path / "f.npz") as file:
        assert file["frames"].tolist() == [-1, 0, 30]


def test_a_table_for_spreadsheets(command, tmp_path):
    odd = tmp_path / 'a, "b".png'
    odd.write_bytes(THREE.read_bytes())
    done = run(command, odd, "none.png", "--csv", "--top_k=2", "--threshold=1")
    assert done.returncode == 1
    first, second, bad = csv.DictReader(done.stdout.splitlines())
    assert (first["image"], first["rank"], first["class"]) == (str(odd), "1", "3")
    assert float(first["probability"]) > 0.99 and first["unsure"] == "True"
    assert second["rank"] == "2" and float(second["probability"]) < 0.01
    assert bad["image"] == "none.png" and "No such file" in bad["error"] and bad["rank"] == ""


def test_unsure_is_said_before_the_classes(command):
    done = run(command, THREE, "--threshold=1", "--top_k=1")
    assert done.stdout.splitlines()[:2] == [str(THREE), "  unsure"]
    assert done.returncode == 0 and done.stdout.splitlines()[2].endswith(" 3")


WRONG = {
    ("--json", "--csv", THREE): "--csv",
    ("--serve", THREE): "digit_3",
    ("--serve", "--json"): "--json",
    ("--features=/nowhere/f.npz", THREE): "/nowhere",
    ("--threshold=2", THREE): "threshold",
    ("nothing*.jpg",): "nothing*.jpg",
    (f"--explain={THREE}", THREE): "digit_3",
}


@pytest.mark.parametrize("words", WRONG, ids=lambda words: str(words[0])[-20:])
def test_wrong_input_is_one_error_line(words, command):
    done = run(command, *words)
    assert (done.returncode, done.stdout) == (2, "")
    (error,) = done.stderr.splitlines()
    assert error.startswith("error: ") and WRONG[words] in error


def test_uploads_are_images_too(network):
    with classifier.Classifier(network, processes=1) as image_classifier:
        uploads = [sources.Upload("three", THREE.read_bytes()), sources.Upload("bad", b"")]
        three, bad = image_classifier.answers(uploads)
    assert network.class_names[three.label] == "3" and bad.error
