"""The pages of benchmarks/recipes.py: what the recipes reach beside the papers."""

import re

import cv2
import pytest
import trained
from conftest import ROOT

from benchmarks import kept, recipes, tables, trainings


def test_rows_and_figures_are_those_of_the_recipes():
    listed = recipes.rows()
    wished = [name for name in recipes.WISHES if name in listed]
    assert list(listed)[: len(wished)] == wished and len(listed) > len(wished)
    figures = {name: (row.data, row.published) for name, row in listed.items()}
    assert figures["cifar_fast"] == ("cifar10", 94.01)
    assert figures["cifar_resnet20"] == ("cifar10", 91.25)
    assert figures["mnist_lenet5"] == ("mnist", 99.05)
    assert figures["wrn28_10"] == ("cifar10", 96.0)
    assert not {"cifar100_wrn28_10", "svhn_wrn16_8", "lenet5", "resnet50_imagenet"} & set(figures)
    training = listed["cifar_resnet20"].training(1)
    assert {"--model=cifar_resnet20", "--epochs=164"} <= set(training.flags)
    assert "--model" not in listed["cifar_fast"].training(0).shown()


def test_a_recipe_without_a_figure_in_the_fixed_form_is_refused(tmp_path):
    (tmp_path / "good.flags").write_text("# Paper: a network on CIFAR-10, 5.5 % test\n# error.\n")
    assert recipes.rows(tmp_path)["good"].published == 94.5
    (tmp_path / "bad.flags").write_text("# Paper: a network on CIFAR-10, 94 %.\n--epochs=1\n")
    with pytest.raises(ValueError, match="bad.flags: expected '... % test top-1' or"):
        recipes.rows(tmp_path)


def test_pages_tell_what_was_reached_beside_the_paper_and_what_is_left(tmp_path, capsys):
    fast = recipes.rows()["cifar_fast"]
    for seed, top1 in enumerate((0.93, 0.94)):
        tests = {"1": {"top1": top1 - 0.01, "n": 10000}, "6": {"top1": top1, "n": 10000}}
        result = trained.result(fast.training(seed), tests=tests, minutes=30.0 + seed)
        kept.append(tmp_path / "trainings.jsonl", result)
    recipes.main([f"--output={tmp_path}"])
    said = re.sub(" +", " ", capsys.readouterr().out)
    assert "| airbench94 | `cifar_fast` | CIFAR-10 | 94.01 | 93.50 ± 0.71 | 2 |" in said
    page = re.sub(" +", " ", (tmp_path / "cifar10.md").read_text())
    assert "| cifar_fast | 1 | 2 | 92.50 ± 0.71 |" in page
    row = "| cifar_fast | 6 | 2 | 93.50 ± 0.71 | 93.00 to 93.97 | 94.01 | -0.51 |"
    assert f"{row} 80.00 ± 0.00 | 2 | 30 |" in page
    assert "| cifar_fast | 1 | 2 | 3 |" in page and "| wrn28_10 | 1 | 0 | 1 |" in page
    assert (
        "arXiv:2404.00498" in page and "--flagfile=recipes/cifar_fast.flags --data=CIFAR10" in page
    )
    assert cv2.imread(str(tmp_path / "cifar10.png")).shape[1] > 1000
    assert "Nothing is trained yet." in (tmp_path / "mnist.md").read_text()
    assert not (tmp_path / "mnist.png").exists()


def test_an_unknown_recipe_is_refused(capsys):
    with pytest.raises(SystemExit):
        recipes.main(["--only=alexnet_2017"])
    assert "unknown names ['alexnet_2017'], expected some of mnist_lenet5," in (
        capsys.readouterr().err
    )


def test_the_pages_of_the_project_tell_what_was_kept():
    results, listed = trainings.read(trainings.RESULTS / trainings.FILE), recipes.rows()
    found = {name: recipes.kept_results(row, results) for name, row in listed.items()}
    for data in trainings.DATA:
        trained_ones = {n: each for n, each in found.items() if each and listed[n].data == data}
        page = (trainings.RESULTS / f"{data}.md").read_text()
        assert tables.markdown(recipes.table(trained_ones, listed)) in page
    assert recipes.networks_table(found, listed) in (ROOT / "docs/networks.md").read_text()
