import numpy as np
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("model", ["batch_norm", "alexnet"])
def test_two_replicas_train_to_the_weights_of_one(model, command, tmp_path):
    results = []
    for replicas in (1, 2):
        file = tmp_path / f"{replicas}.npz"
        done = command("tests/replicas.py", model, replicas, file)
        assert done.returncode == 0, done.stderr
        results.append(np.load(file))
    one, two = results
    assert set(one.files) == set(two.files)
    assert one["examples"] == two["examples"] == 15 * 16
    assert one["evaluated"] == two["evaluated"] == 11
    assert one["evaluation_loss"] == pytest.approx(two["evaluation_loss"], rel=1e-4)
    differences = {name: np.abs(one[name] - two[name]).max() for name in one if "model/" in name}
    assert max(differences.values()) <= 1e-5, max(differences, key=differences.get)
