"""Networks that differ in kind, whole but for the size of the images, trained by train.py."""

import pytest

SIZES = {
    "googlenet": 32,
    "dpn68": 32,
    "densenet40_k12": 8,
    "resnext29_8x64d": 8,
    "mobilenet_025": 32,
    "fractalnet21": 32,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_two_steps(name, tmp_path, finished):
    words = [f"--model={name}", f"--image_size={SIZES[name]}", "--batch_size=8", "--max_steps=2"]
    assert finished(tmp_path / "run", *words)[0] == "2"
