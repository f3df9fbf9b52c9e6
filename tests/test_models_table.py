"""`python -m models`: the table of networks, their layers, and what it refuses."""

import pathlib
import re

import keras
import pytest
from outlines import NETWORKS

import models
from models import __main__ as table
from models import registry
from models.tools import graphs


@pytest.fixture(autouse=True)
def session():
    yield
    keras.backend.clear_session()


def cells(line):
    return [cell.strip() for cell in line.strip("| ").split("|")]


def test_a_row_of_the_docs(capsys):
    table.main(["lenet5", "--markdown", "--batch_size=2"])
    title, rule, row, *layers = capsys.readouterr().out.splitlines()
    assert cells(title)[-2:] == ["multiply-adds", "memory, N = 2"]
    assert all(dashes.strip("-") in ("", ":") for dashes in cells(rule))
    variant = models.VARIANTS["lenet5"]
    assert cells(row)[:6] == [
        *("lenet5", variant.paper, str(variant.year), variant.error),
        *("32 x 32", "62,006"),
    ]
    assert cells(row)[6:] == ["0.2", "0.7", "1"]
    assert len({len(line) for line in (title, rule, row)}) == 1
    named = [cells(line) for line in layers if line.startswith("| conv")]
    assert named == [
        ["conv1", "Conv2D", "28 x 28 x 6", "456", "352,800"],
        ["conv3", "Conv2D", "10 x 10 x 16", "2,416", "240,000"],
        ["conv5", "Conv2D", "1 x 1 x 120", "48,120", "48,000"],
    ]


def test_plain_text_is_aligned(capsys):
    table.main(["resnet18", "alexnet"])
    lines = capsys.readouterr().out.splitlines()
    title, _, resnet18, alexnet = lines[:4]
    assert len(resnet18) == len(alexnet) == len(title)
    assert "60,965,224" in alexnet and "724.4" in alexnet and "11,689,512" in resnet18
    assert ["resnet18", "alexnet"] == [line for line in lines if line in models.names()]


def test_published_weights_are_listed_with_the_default_of_a_source_first(capsys):
    table.main(["resnet50", "lenet5", "--weights", "--markdown"])
    title, _, *lines = capsys.readouterr().out.splitlines()
    assert cells(title)[:6] == ["network", "source", "tag", "top-1", "input", "MB"]
    timm = [cells(line) for line in lines if cells(line)[1] == "timm"]
    assert timm[0][2:5] == ["resnet50.a1_in1k", "80.38", "224"] and timm[0][6] == "apache-2.0"
    assert {cells(line)[0] for line in lines} == {"resnet50"} and len(timm) > 10


def test_all_networks_are_listed(monkeypatch, capsys):
    built = []
    monkeypatch.setattr(table, "_row", lambda name, *_: [built.append(name) or name] + [""] * 8)
    monkeypatch.setattr(table, "_outline", lambda name: None)
    table.main([])
    assert built == list(models.VARIANTS)
    assert len(capsys.readouterr().out.splitlines()) == len(built) + 2


def test_costs_of_every_kind_of_layer():
    images = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(6, 3, groups=2, padding="same")(images)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = keras.layers.SeparableConv2D(10, 3, padding="same")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(images, keras.layers.Dense(5)(x))
    costs = [cost for layer in model.layers if (cost := graphs.layer_multiply_adds(layer))]
    separable = 16 * (9 * 6 + 6 * 10)
    assert costs == [64 * 9 * 2 * 6, 16 * 9 * 6, separable, 16 * 10 * 5]
    assert graphs.multiply_adds(model) == sum(costs)
    assert graphs.activations(model) == 64 * (4 + 6 + 6) + 16 * (6 + 10 + 10) + 5


def test_sums_match_in_any_order_and_concatenations_in_theirs():
    def network(join, turned):
        images = keras.Input((4,))
        parts = [keras.layers.Dense(3)(images), keras.layers.Dense(3)(images)]
        parts[0] = keras.layers.Dense(3)(parts[0])
        x = join()(parts[::-1] if turned else parts)
        return keras.Model(images, {"logits": keras.layers.Dense(2)(x)})

    def single(model):
        return keras.Model(model.input, model.output["logits"])

    ways = [
        (network(keras.layers.Add, False), single(network(keras.layers.Add, True))),
        (
            network(keras.layers.Concatenate, False),
            single(network(keras.layers.Concatenate, False)),
        ),
    ]
    for ours, theirs in ways:
        pairs = graphs.same_layers(ours, theirs)
        assert len(pairs) == 4
        assert all(pair.ours.kernel.shape == pair.theirs.kernel.shape for pair in pairs)
    with pytest.raises(ValueError, match="the networks differ: "):
        graphs.same_layers(ways[1][0], single(network(keras.layers.Concatenate, True)))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["alexnot"], "error: unknown model, expected one of .* received 'alexnot'\n"),
        (["--batch_size=0"], "error: wrong batch_size, expected 1 or more, received 0\n"),
        (["--batch_size=x"], "error: argument --batch_size: invalid int value: 'x'\n"),
    ],
)
def test_refuses(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        table.main(arguments)
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert re.fullmatch(complaint, output.err)


def test_the_docs_have_this_table():
    lines = (pathlib.Path(__file__).parent.parent / "docs" / "networks.md").read_text().splitlines()
    rows = {cells(line)[0]: cells(line) for line in lines if line.startswith("| ")}
    assert set(models.names()) <= set(rows)
    for name in models.names():
        variant = models.VARIANTS[name]
        assert rows[name][1:4] == [variant.paper, str(variant.year or ""), variant.error]
        assert re.search(r"\d", variant.error) or variant.error.startswith(registry.UNPUBLISHED)
        trainable, others, madds = (
            float(NETWORKS[name][column])
            for column in ("trainable", "non_trainable", "madds_millions")
        )
        assert rows[name][5:7] == [f"{trainable:,.0f}", f"{4e-6 * (trainable + others):,.1f}"]
        assert float(rows[name][7].replace(",", "")) == pytest.approx(madds, rel=0.005, abs=0.05)
    for name in ("lenet5", "alexnet", "cifar_resnet20", "mobilenet_025"):
        assert rows[name] == table._row(name, table._outline(name), batch_size=128)


def test_networks_without_published_weights_are_named(capsys):
    with pytest.raises(SystemExit) as ended:
        table.main(["lenet5", "--weights"])
    assert ended.value.code == 2
    assert "no source has weights of lenet5" in capsys.readouterr().err
