import keras
import numpy as np
import pytest
from conftest import curves

import models
from engine import summaries


def test_a_grid_holds_every_image_once():
    images = np.stack([np.full((4, 5, 3), value, np.uint8) for value in range(1, 8)])
    sheet = summaries.grid(images)
    assert sheet.shape == (3 * 5, 3 * 6, 3)
    tops_and_lefts = [(5 * (index // 3), 6 * (index % 3)) for index in range(7)]
    for image, (top, left) in zip(images, tops_and_lefts, strict=True):
        np.testing.assert_array_equal(sheet[top : top + 4, left : left + 5], image)
    assert not sheet[4::5].any() and not sheet[:, 5::6].any() and not sheet[10:, 6:].any()


def test_alexnets_filters_are_split_by_tower():
    model = models.build("alexnet", 2, image_size=67)
    kernel = model.get_layer("conv1").kernel.numpy()
    found = summaries.first_filters(model)
    assert list(found) == ["filters/tower1", "filters/tower2"]
    np.testing.assert_array_equal(found["filters/tower1"], kernel[..., :48])
    np.testing.assert_array_equal(found["filters/tower2"], kernel[..., 48:])


def test_other_networks_have_one_picture_or_none():
    assert list(summaries.first_filters(models.build("lenet5", 2))) == ["filters"]
    images = keras.Input((4,))
    dense = keras.Model(images, keras.layers.Dense(2)(images))
    assert summaries.first_filters(dense) == {}


def write_curves(run):
    for step in range(1, 6):
        run.scalars("train", {"loss": 10.0 * step}, step)
    run.scalars("validation", {"loss": 7.0}, 5)


@pytest.mark.parametrize("flushed", [False, True])
def test_curves_end_where_a_run_goes_back(tmp_path, flushed):
    run = summaries.Summaries(tmp_path)
    write_curves(run)
    if flushed:
        run.flush()
    run.keep(3)
    run.scalars("train", {"loss": 41.0}, 4)
    run.flush()
    assert curves(tmp_path) == {"train/loss": [(1, 10.0), (2, 20.0), (3, 30.0), (4, 41.0)]}


@pytest.mark.parametrize("cut", [0, 5])
def test_curves_end_where_a_killed_run_goes_on(tmp_path, cut):
    killed = summaries.Summaries(tmp_path)
    write_curves(killed)
    killed.flush()
    (path,) = tmp_path.glob("train/*tfevents*")
    path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
    resumed = summaries.Summaries(tmp_path)
    resumed.keep(3)
    resumed.scalars("train", {"loss": 41.0}, 4)
    resumed.flush()
    assert curves(tmp_path) == {"train/loss": [(1, 10.0), (2, 20.0), (3, 30.0), (4, 41.0)]}
    assert not list(tmp_path.glob("*/.*"))
