"""Comparing runs: what is a row, its figures by hand, and a page that needs nothing else."""

import csv
import json
import re
import statistics
from html.parser import HTMLParser

import pytest

from report import compare, history, plots

COST = {"parameters": 62006, "multiply_adds": 700_000}


@pytest.fixture
def run(tmp_path):
    """Writes a run folder."""

    def write(name, accuracies, **flags):
        folder = tmp_path / name
        folder.mkdir()
        flags = {"model": "lenet5", "seed": 0, "batch_size": 10, "run_dir": str(folder), **flags}
        (folder / "run.json").write_text(json.dumps({"flags": flags, "cost": COST}))
        with open(folder / "metrics.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ("epoch", "step", "train_loss", "validation_top1_accuracy", "images_per_second")
            )
            for epoch, accuracy in enumerate(accuracies, 1):
                writer.writerow((epoch, 30 * epoch, 1 / epoch, accuracy, 100 * epoch))
        return folder

    return write


def test_seeds_are_one_row_and_what_differs_is_its_name(run):
    folders = [run(f"a{seed}", (0.5, 0.6 + seed / 100), seed=seed) for seed in range(3)]
    folders.append(run("b", (0.9,), dropout=0.2, milestones=["0.5", "0.9"]))
    groups = compare.grouped([history.read(folder) for folder in folders])
    assert list(groups) == ["dropout=0.2 milestones=0.5,0.9", "milestones=0.5,0.75"]
    alone, seeds = (compare.row(title, runs) for title, runs in groups.items())
    expected = statistics.stdev((60, 61, 62))
    name = "milestones=0.5,0.75"  # their default, which their run.json does not name
    assert seeds == [name, "3", f"61.00 ± {expected:.2f}", "2", "0.1", "150", "62,006", "0.7 M"]
    assert alone[1:4] == ["1", "90.00", "1"]


def test_a_run_from_before_a_flag_had_its_default(run):
    newer = {"power": 1.0, "milestones": ["0.5", "0.75"], "clip_norm": None, "histograms": True}
    folders = [run("old", (0.5,), seed=1), run("new", (0.6,), seed=2, **newer)]
    folders.append(run("other", (0.4,), power=2.0))
    groups = compare.grouped([history.read(folder) for folder in folders])
    assert {title: len(runs) for title, runs in groups.items()} == {"power=1.0": 2, "power=2.0": 1}


def test_a_flag_of_a_later_version_has_the_default_that_its_runs_record(run):
    folders = [run("old", (0.5,), seed=1), run("new", (0.6,), seed=2, later=3, quietly=True)]
    folders.append(run("other", (0.4,), later=4))
    for folder in folders[1:]:
        settings = json.loads((folder / "run.json").read_text())
        settings |= {"defaults": {"later": 3, "quietly": False}, "repeats": ["quietly"]}
        (folder / "run.json").write_text(json.dumps(settings))
    groups = compare.grouped([history.read(folder) for folder in folders])
    assert {name: len(runs) for name, runs in groups.items()} == {"later=3": 2, "later=4": 1}


def test_data_are_told_apart_by_name_and_size_not_by_the_way_to_them(run):
    places = {"old": "flowers", "new": "/somewhere/flowers", "other": "/somewhere/birds"}
    folders = [run(name, (0.5,), seed=len(name), data=data) for name, data in places.items()]
    groups = compare.grouped([history.read(folder) for folder in folders])
    assert {name: len(runs) for name, runs in groups.items()} == {
        "data=flowers": 2,
        "data=birds": 1,
    }
    settings = {"flags": {"data": "x/flowers"}, "data": {"examples": {"train": 1200}}}
    of_size = history.History(folders[0], settings, [], {})
    assert of_size.flags([])["data"] == "flowers (1,200 images)"


def test_epochs_are_in_the_order_of_numbers(run):
    runs = [history.read(run(f"a{n}", (0.5,) * n, seed=n)) for n in (10, 9, 2)]
    assert compare.row("a", runs)[3] == "2/9/10"


def test_seconds_are_of_every_epochs_own_speed(run):
    assert history.read(run("a", (0.5, 0.6))).seconds == pytest.approx(300 / 100 + 300 / 200)


def test_a_training_without_validation(run):
    folder = run("a", ("", ""))
    found = history.read(folder)
    assert found.best_accuracy is None
    assert compare.row("a", [found])[2] == ""
    assert compare.curves({"a": [found]}, "validation_top1_accuracy") is None
    assert compare.curves({"a": [found]}, "train_loss")


class Addresses(HTMLParser):
    found = ()

    def handle_starttag(self, tag, attrs):
        self.found += tuple(v for n, v in attrs if n in ("src", "href"))


def test_the_page_needs_nothing_else_and_runs_nothing(run, tmp_path, capsys):
    folders = [run("a", (0.5, 0.6)), run("<script>alert(1)<", (0.7,), dropout="<b>")]
    page = tmp_path / "page.html"
    compare.main([*map(str, folders), f"--output={page}"])
    text, addresses = page.read_text(), Addresses()
    addresses.feed(text)
    assert len(addresses.found) == 2  # no validation loss was written
    assert all(each.startswith("data:image/png;base64,") for each in addresses.found)
    assert "<script" not in text and "<b>" not in text and "http" not in text
    said = capsys.readouterr().out
    assert re.search(r"^dropout=<b> +1 +70.00 ", said, re.M) and f"page: {page}" in said


@pytest.mark.parametrize(
    "content, complaint",
    [
        ({}, "no run.json in"),
        ({"run.json": "{}"}, "no metrics.csv in"),
        ({"run.json": "{", "metrics.csv": "epoch\n1\n"}, "are damaged"),
        ({"run.json": "{}", "metrics.csv": "epoch\n1\n"}, "are damaged"),
        ({"run.json": '{"flags": {"batch_size": 1}}', "metrics.csv": "epoch\n"}, "no rows in"),
    ],
)
def test_what_is_no_run_is_one_error_line(content, complaint, tmp_path, capsys):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as end:
        compare.main([str(tmp_path), f"--output={tmp_path}/page.html"])
    assert end.value.code == 2 and not (tmp_path / "page.html").exists()
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and complaint in errors[0]


def test_a_band_goes_from_the_lowest_to_the_highest_seed():
    class Panel:
        def fill_between(self, *ends, **_):
            self.ends = [list(each) for each in ends]

    panel = Panel()
    curves = [[(1, 0.2), (2, 0.5)], [(1, 0.4), (2, 0.3), (3, 0.9)]]
    mean = plots._banded(panel, curves, "red")
    assert [(epoch, round(value, 6)) for epoch, value in mean] == [(1, 0.3), (2, 0.4), (3, 0.9)]
    assert panel.ends == [[1, 2, 3], [0.2, 0.3, 0.9], [0.4, 0.5, 0.9]]
    groups = {"group": curves, "one": curves[:1]}
    drawn = [plots.epochs({"top-1": groups}, band=band) for band in (True, False)]
    assert all(png.startswith(b"\x89PNG") for png in drawn) and drawn[0] != drawn[1]
