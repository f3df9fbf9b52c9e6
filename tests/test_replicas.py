"""Any number of replicas, in one process or in two, trains to the weights of one."""

import numpy as np
import pytest

from tests.stress.workers import environment, free_ports

LAYOUTS = {"1": [1], "3": [3], "2 processes": [1, 1]}  # devices of each process


@pytest.fixture(scope="module")
def trained(server, tmp_path_factory):
    """What every process of every layout has in the end."""
    folder = tmp_path_factory.mktemp("replicas")
    return {name: run(server, folder / name, layout) for name, layout in LAYOUTS.items()}


def run(server, folder, layout):
    folder.mkdir()
    files = [folder / f"{index}.npz" for index in range(len(layout))]
    started = [
        server.start("-m", "tests.replicas", count, file, environment=variables)
        for count, file, variables in zip(layout, files, environments(layout), strict=True)
    ]
    assert [process.wait(120) for process in started] == [0] * len(layout), [
        process.output()[1] for process in started
    ]
    return [np.load(file) for file in files]


def environments(layout):
    if len(layout) == 1:
        return [{}]
    workers = [f"127.0.0.1:{port}" for port in free_ports(len(layout))]
    return [environment(workers, index) for index in range(len(layout))]


@pytest.mark.slow
@pytest.mark.parametrize("layout", list(LAYOUTS)[1:])
def test_replicas_train_to_the_weights_of_one(layout, trained):
    one = trained["1"][0]
    for found in trained[layout]:
        assert set(one.files) == set(found.files)
        assert found["examples"] == one["examples"] == 15 * 24
        assert found["evaluated"] == one["evaluated"] == 11
        assert found["confusion"].sum() == 11
        np.testing.assert_array_equal(found["confusion"], one["confusion"])
        for name in ("loss", "norm", "evaluation_loss"):
            assert found[name] == pytest.approx(one[name], rel=1e-4), name
        kinds = ("model/", "average/", "lookahead/", "optimizer/")
        differences = {
            name: np.abs(one[name] - found[name]).max()
            for name in one.files
            if name.startswith(kinds)
        }
        assert max(differences.values()) <= 1e-5, max(differences, key=differences.get)


@pytest.mark.slow
@pytest.mark.parametrize("layout", list(LAYOUTS)[1:])
def test_statistics_far_from_zero_are_exact(layout, trained):
    outputs, variance = trained[layout][0]["far"]
    np.testing.assert_allclose(outputs, np.sqrt(1e-2 / (1e-2 + 1e-5)), rtol=1e-2)
    np.testing.assert_allclose(variance, 1e-2, rtol=0.3)


@pytest.mark.slow
def test_processes_have_the_same_bits(trained):
    first, second = trained["2 processes"]
    for name in set(first.files) - {"masks"}:
        np.testing.assert_array_equal(first[name], second[name])
    assert first["gathered"].tolist() == [[0, 0.25], [1, 0.25]]


@pytest.mark.slow
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_replica_has_its_own_dropout_masks_and_always_the_same(layout, trained):
    masks = np.concatenate([found["masks"] for found in trained[layout]], axis=1)
    np.testing.assert_array_equal(masks[0], masks[1])
    assert len({mask.tobytes() for mask in masks[0]}) == masks.shape[1] == sum(LAYOUTS[layout])
    assert (0.4 < masks.mean(axis=-1)).all() and (masks.mean(axis=-1) < 0.6).all()
    np.testing.assert_array_equal(masks[0, 0], trained["1"][0]["masks"][0, 0])
