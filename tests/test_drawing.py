"""Pictures of networks."""

import cv2
import keras
import pytest

import models
from models import __main__ as table
from models.tools import drawing


def test_a_convolution_and_what_follows_it_are_one_box():
    found = drawing.boxes(models.build("cifar_resnet20", 10))
    names = [[layer.name for layer in box.layers] for box in found]
    kinds = [[type(layer).__name__ for layer in box.layers] for box in found]
    assert names[:2] == [["images"], ["normalize"]]
    assert kinds[2] == ["Conv2D", "BatchNorm", "Activation"] and found[2].inputs == [1]
    first_sum = next(place for place, kind in enumerate(kinds) if kind[0] == "Add")
    assert sorted(found[first_sum].inputs) == [2, first_sum - 1]  # around the block, and through it
    assert sum(map(len, names)) == len(models.build("cifar_resnet20", 10).layers)
    keras.utils.clear_session()


@pytest.mark.parametrize("name", ["lenet5", "googlenet"])
def test_a_picture_is_written(name, tmp_path):
    table.main([name, f"--plot={tmp_path}/net.png"])
    picture = cv2.imread(str(tmp_path / "net.png"))
    assert picture.shape[0] > 700 and picture.std() > 10


def test_boxes_do_not_lie_over_each_other(tmp_path):
    assert drawing._apart([(0, 0), (0.5, 0), (3, 0), (0.5, 1)]) == [
        (0, 0),
        (1, 0),
        (3, 0),
        (0.5, 1),
    ]
    table.main(["googlenet", f"--plot={tmp_path}/net.svg"])
    assert "<svg" in (tmp_path / "net.svg").read_text()[:600]


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["lenet5", "alexnet", "--plot=x.png"], "--plot draws one network, received 2"),
        (["lenet5", "--plot=x.doc"], "is not supported"),
        (["lenet5", "--plot=/nowhere/x.png"], "No such file"),
    ],
)
def test_what_cannot_be_drawn(words, complaint, capsys):
    with pytest.raises(SystemExit) as stopped:
        table.main(words)
    assert stopped.value.code == 2 and complaint in capsys.readouterr().err
