import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("model", ["batch_norm", "towers"])
def test_two_replicas_train_to_the_weights_of_one(model, tmp_path):
    for replicas in ("1", "2"):
        words = [sys.executable, "-m", "tests.replicas", model, replicas, tmp_path / replicas]
        subprocess.run(words, cwd=ROOT, check=True)
    one, two = (np.load(tmp_path / f"{replicas}.npz") for replicas in ("1", "2"))
    assert set(one.files) == set(two.files)
    assert one["examples"] == two["examples"] == 15 * 16
    assert one["evaluated"] == two["evaluated"] == 11
    assert one["evaluation_loss"] == pytest.approx(two["evaluation_loss"], rel=1e-4)
    differences = {
        name: np.abs(one[name] - two[name]).max()
        for name in one
        if "model/" in name or "average/" in name
    }
    assert max(differences.values()) <= 1e-5, max(differences, key=differences.get)
