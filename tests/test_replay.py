"""`--show_step` shows exactly the images of a step."""

import cv2
import numpy as np
import pytest
from test_pipeline import FORMATS, photo, write_dataset

from data import pipeline
from data.pipeline import augment, pixels
from training import replay


@pytest.fixture(params=FORMATS)
def dataset(request, tmp_path):
    images = [photo(*size, seed) for seed, size in enumerate([(64, 64), (70, 91), (99, 65)] * 4)]
    return write_dataset(tmp_path, images, shards=3, encoding=request.param)


@pytest.mark.parametrize("policy", ["alexnet", "inception", "cifar", "airbench"])
def test_origins_are_those_of_the_batch(dataset, policy):
    policy = augment.POLICIES[policy]
    options = {"size": 48, "batch_size": 4, "seed": 3, "step": 5}
    origins = replay.origins(dataset, policy, **options)
    batches = pipeline.train_batches(dataset, policy, **options, steps=6, threads=2)
    ((images, labels, _),) = batches.as_numpy_iterator()
    assert [origin.label for origin in origins] == labels.tolist()
    assert [origin.filename for origin in origins] == [str(label) for label in labels]
    for origin, image in zip(origins, images, strict=True):
        top, left, height, width = origin.window
        beyond = "reflect" if policy.reflects else "constant"
        padded = np.pad(origin.stored, [(height - 1,) * 2, (width - 1,) * 2, (0, 0)], beyond)
        part = padded[top + height - 1 :, left + width - 1 :][:height, :width]
        if part.shape[:2] != (48, 48):
            part = pixels.resize(part.copy(), np.empty([48, 48, 3], np.uint8))
        np.testing.assert_array_equal(cv2.flip(part, 1) if origin.mirrored else part, image)


@pytest.mark.slow
def test_a_picture_of_a_step_of_a_new_run_and_of_an_old_one(command, photographs, tmp_path):
    run_dir = tmp_path / "run"
    words = [f"--data={photographs}", "--model=lenet5", "--batch_size=8", f"--run_dir={run_dir}"]
    new = command("train.py", *words, "--show_step=2")
    assert new.returncode == 0, new.stderr
    assert [path.name for path in run_dir.iterdir()] == ["step-00000002.png"]
    picture = (run_dir / "step-00000002.png").read_bytes()
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape == (800, 676, 3)
    files = {path.name for path in photographs.rglob("*.jpg")}
    shown = [line.split("/")[-1] for line in new.stdout.splitlines() if line.endswith(".jpg")]
    assert len(shown) == 8 and set(shown) <= files

    command("train.py", *words, "--max_steps=1")
    old = command("train.py", "--resume", f"--run_dir={run_dir}", "--show_step=2")
    assert old.returncode == 0, old.stderr
    assert (run_dir / "step-00000002.png").read_bytes() == picture
    beyond = command("train.py", "--resume", f"--run_dir={run_dir}", "--show_step=99999")
    assert beyond.returncode == 2 and "--show_step expects a step below" in beyond.stderr
