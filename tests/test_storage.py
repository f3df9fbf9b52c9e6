"""benchmarks/storage.py: its ways are what they say, its figures by hand, and both parts run."""

import io
import json
import math
import re

import cv2
import numpy as np
import pytest
import safetensors.numpy
from conftest import photograph
from PIL import Image

import models
from benchmarks import storage
from data.images import decode

TENCH, SHARK = "n01440764", "n01484850"  # labels 0 and 2
PARTS = {"squeeze": 1, "expand1x1": 1, "expand3x3": 3}


def torchvision(model):
    """Tensors of torchvision's names for a SqueezeNet 1.1; the i-th layer's are all i + 1."""
    places = ["features.0"]
    places += [f"features.{i}.{part}" for i in (3, 4, 6, 7, 9, 10, 11, 12) for part in PARTS]
    tensors = {}
    for number, (place, layer) in enumerate(
        zip([*places, "classifier.1"], convolutions(model), strict=True), 1
    ):
        kernel = np.transpose(layer.kernel.numpy(), (3, 2, 0, 1))
        tensors[f"{place}.weight"] = np.full_like(kernel, number)
        tensors[f"{place}.bias"] = np.full(len(kernel), number, np.float32)
    return dict(sorted(tensors.items()))  # as a file has them


def convolutions(model):
    return [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Eight photographs, a little larger than 256 pixels, and one that is not reduced."""
    root = tmp_path_factory.mktemp("photographs")
    for name in (TENCH, SHARK, "other"):
        (root / "below" / name).mkdir(parents=True)
    for seed in range(8):
        name = TENCH if seed < 5 else SHARK
        cv2.imwrite(str(root / "below" / name / f"{seed}.png"), photograph(seed, 320, 300))
    cv2.imwrite(str(root / "below" / TENCH / "small.png"), photograph(8, 256, 300))
    cv2.imwrite(str(root / "below" / "other" / "9.png"), photograph(9, 320, 300))
    return root


def test_photographs_are_those_that_a_conversion_reduces(photographs):
    images, labels = storage.photographs([str(photographs)])
    assert labels.tolist() == [0] * 5 + [2] * 3
    assert {image.shape for image in images} == {(273, 256, 3)}
    square = photograph(0, 300, 300)
    file = cv2.imencode(".png", square)[1].tobytes()
    kept = decode.store(file, decode.Storage(256, encoding="raw"))
    pixels = np.frombuffer(kept.encoded, np.uint8).reshape(256, 256, 3)
    np.testing.assert_array_equal(storage.reduced(square), pixels[..., ::-1])
    with pytest.raises(ValueError, match="expected images of more than 256 pixels"):
        storage.photographs([str(photographs / "below" / "other")])


@pytest.mark.parametrize("name", storage.WAYS)
def test_a_way_is_what_its_name_says(name):
    way, image = storage.WAYS[name], photograph(0, 64, 64)
    sampling, quality, *more = name.split("-")
    opened = Image.open(io.BytesIO(way.encode(image)))
    assert opened.layer[0][1:3] == {"444": (1, 1), "422": (2, 1), "420": (2, 2)}[sampling]
    assert [layer[1:3] for layer in opened.layer[1:]] == [(1, 1)] * 2
    assert ("progressive" in opened.info) == (more == ["progressive"])
    chroma = int(more[0]) if more and more[0].isdecimal() else int(quality)
    expected = [[16, int(quality)], [17, chroma]]  # first of Annex K's tables
    steps = [(value * (200 - 2 * q) + 50) // 100 for value, q in expected]
    assert [opened.quantization[table][0] for table in (0, 1)] == steps
    if more == ["optimized"]:
        plain = storage.Way("", sampling, int(quality)).encode(image)
        assert len(way.encode(image)) < len(plain)
        np.testing.assert_array_equal(decode.decode(way.encode(image)), decode.decode(plain))


def test_changes_are_those_of_the_same_images():
    before = np.array([[1, 1, 0, 0], np.log([0.5, 0.4, 0.2, 0.1])])
    after = np.array([[1, 0, 1, 0], np.log([0.5, 0.2, 0.4, 0.05])])
    found = storage.against(before, after)
    losses = [0, math.log(2), -math.log(2), math.log(2)]
    assert found == pytest.approx(
        {
            "top1_accuracy": 0.5,
            "lost": 1,
            "gained": 1,
            "probability_change": (0.2 + 0.2 + 0.05) / 4,
            "loss": -math.log(0.5 * 0.2 * 0.4 * 0.05) / 4,
            "loss_change": math.log(2) / 4,
            "loss_error": np.std(losses, ddof=1) / 2,
        }
    )


def test_a_ratio_is_that_of_turns_of_one_round():
    def result(name, *turns):
        turned = [
            {"images": images, "seconds": 2, "cpu": cpu, "waited": 0} for images, cpu in turns
        ]
        return {"name": name, "turns": turned}

    today = result("420-95", (100, 1), (10, 1), (20, 4))
    other = result("444-90", (50, 1), (20, 1), (20, 1))
    rows = storage.speed_rows([today, other])
    assert rows[1][3:] == ["1.000", "100,000", "1.000"]
    assert rows[2] == ["4:4:4, 90", "10", "10 - 25", "1.000", "50,000", "2.000"]
    assert [row[3::2] for row in storage.speed_rows([other])[1:]] == [["", ""]]


def test_torchvisions_layers_are_ours_in_order():
    model = models.build("squeezenet1_1", 7)
    tensors = torchvision(model)
    storage._load_squeezenet(model, tensors)
    for number, layer in enumerate(convolutions(model), 1):
        assert layer.kernel.numpy().min() == layer.kernel.numpy().max() == number
    assert [layer.name for layer in convolutions(model)][1:4] == [
        f"fire2_{part}" for part in ("squeeze", "expand1", "expand3")
    ]
    del tensors["classifier.1.weight"]
    with pytest.raises(ValueError, match="expected 26 kernels, received 25"):
        storage._load_squeezenet(model, tensors)


@pytest.mark.slow
def test_both_parts_are_measured_and_kept(command, photographs, tmp_path):
    weights = tmp_path / "weights.safetensors"
    model = models.build("squeezenet1_1", 1000)
    draw, tensors = np.random.default_rng(0), {}
    for name, value in torchvision(model).items():
        spread = math.sqrt(2 / max(100, math.prod(value.shape[1:])))  # K. He et al.
        tensors[name] = draw.normal(0, spread, value.shape).astype(np.float32)
    safetensors.numpy.save_file(tensors, weights)
    words = [f"--data={photographs}", "--ways=420-95,444-85", f"--output={tmp_path / 'out'}"]
    done = command(
        "benchmarks/storage.py",
        *words,
        "--part=accuracy",
        f"--weights=squeezenet1_1={weights}",
    )
    assert done.returncode == 0, done.stderr
    quick = ["--seconds=0.1", "--repeat=1", "--threads=1", "--examples=12"]
    speed = ["tests/one_process.py", "benchmarks/storage.py", *words, "--part=speed"]
    done = command(*speed, *quick)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "storage.json").read_text())
    sizes = report["accuracy"]["bytes_per_image"]
    assert sizes["none"] == 3 * 256 * 273 and sizes["none"] > sizes["420-95"] > 1000
    rows = report["accuracy"]["networks"]["squeezenet1_1"]
    assert list(rows) == ["none", "420-95", "444-85"]
    assert rows["none"]["probability_change"] == 0 < rows["420-95"]["probability_change"]
    assert report["accuracy"]["images"] == report["speed"]["images"] == 8
    for results in report["speed"]["policies"].values():
        assert [result["name"] for result in results] == ["420-95", "444-85"]
        assert all(result["shape"] == [12, 224, 224, 3] for result in results)
    written = (tmp_path / "out" / "storage.md").read_text()
    assert written.count("\n| 4:4:4, 85 ") == 4 and written.count("1.000") >= 4
    assert "--weights=squeezenet1_1=FILE" in written and str(tmp_path) not in written
    assert not re.search(r"\bnan\b", written)
    done = command("benchmarks/storage.py", *words)
    assert done.returncode == 2 and "--weights is missing" in done.stderr
