import dataclasses
import json
import os
import time
from pathlib import Path

import cv2
import feeds
import pytest
from conftest import photograph

from benchmarks import stacks, tables, train, turns
from benchmarks.setting import Setting

SETTING = Setting("256", "", "", size=8, batch_size=4, threads=1)
QUICK = ("--seconds=0.1", "--repeat=1", "--threads=1", "--examples=8")


@pytest.fixture(scope="session")
def large_photographs(tmp_path_factory):
    """Two class folders of 4 JPEG files, a little larger than 256 pixels."""
    root = tmp_path_factory.mktemp("photographs")
    for seed in range(8):
        folder = root / f"class_{seed % 2}"
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{seed}.jpg"), photograph(seed, 260, 300))
    return root


@pytest.fixture(scope="session")
def small_squares(tmp_path_factory):
    root = tmp_path_factory.mktemp("squares")
    for seed in range(8):
        folder = root / f"class_{seed % 2}"
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{seed}.png"), photograph(seed, 32, 32))
    return root


def candidate(name, function, **options):
    return turns.Candidate(name, f"the {name}", function, options)


@pytest.fixture
def measured(monkeypatch):
    """Measures candidates of `feeds`; returns results by name and the lines said."""
    monkeypatch.setenv("PYTHONPATH", "tests")

    def measure(*candidates, **options):
        lines = []
        pairs = [(each, SETTING) for each in candidates]
        results = turns.measure(pairs, seconds=0.1, repeat=2, say=lines.append, **options)
        return {result["name"]: result for result in results}, lines

    return measure


def test_candidates_take_turns_in_processes_of_their_own(measured):
    results, lines = measured(
        candidate("fast", "feeds:counting"),
        candidate("slow", "feeds:counting", cost=0.02),
    )
    assert not lines and list(results) == ["fast", "slow"]
    assert results["slow"]["shape"] == [4, 8, 8, 3] and results["slow"]["dtype"] == "uint8"
    for result in results.values():
        assert len(result["turns"]) == 2
        for turn in result["turns"]:
            assert turn["images"] % 4 == 0 and turn["images"] > 0 and turn["seconds"] >= 0.1
    assert tables.summary(results["slow"])["median"] <= 4 / 0.02


def test_candidates_start_together(measured, tmp_path):
    here, there = str(tmp_path / "a"), str(tmp_path / "b")
    a = candidate("a", "feeds:meeting", own=here, other=there)
    b = candidate("b", "feeds:meeting", own=there, other=here)
    results, lines = measured(a, b, together=True)
    assert not lines and list(results) == ["a", "b"]


def test_what_is_missing_or_broken_is_left_out_with_a_line(measured):
    results, lines = measured(
        candidate("fast", "feeds:counting"),
        candidate("absent", "no_such_package.loader:batches"),
        candidate("wrong", "feeds:counting", no_such_option=1),
        candidate("later", "feeds:broken_later"),
    )
    assert list(results) == ["fast"]
    assert lines[0] == "skipped absent: No module named 'no_such_package'"
    assert lines[1].startswith("failed wrong: TypeError") and "no_such_option" in lines[1]
    assert lines[2].startswith("failed later: ValueError") and "out of images" in lines[2]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_candidates_leave_nothing_behind(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "tests")
    name = f"convnets-test-{os.getpid()}"
    setting = dataclasses.replace(SETTING, folder=name)
    running = turns.Running(candidate("litter", "feeds:littering"), setting)
    running.ready()
    assert Path("/dev/shm", name).exists() and len(processes_about(name)) == 1
    running.stop()
    deadline = time.monotonic() + 10
    while Path("/dev/shm", name).exists() or processes_about(name):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_about(word):
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [command] * (word.encode() in command.read_bytes())
        except OSError:
            continue
    return found


def test_table_of_medians():
    def result(name, *rates, cpu=0.5):
        turn = [
            {"images": rate, "seconds": 1.0, "cpu": cpu, "waited": 0.25, "idle": True}
            for rate in rates
        ]
        return {"name": name, "label": name, "shape": [], "dtype": "", "turns": turn}

    results = [result("ours", 90, 110, 100), result("ceiling", 200), result("other", 50)]
    head, *rows = tables.compared(results)
    assert [row[0] for row in rows] == ["ceiling", "ours", "other"]
    assert rows[1][1:5] == ["100", "90 - 110", "0.50", "1.00 x"]
    assert rows[2][4:6] == ["2.00 x", "10,000"]
    assert tables.summary(results[0])["waited"] == 0.25
    assert tables.markdown([head, *rows]).count("\n") == 4


@pytest.mark.slow
def test_input_has_a_row_for_every_candidate(command, large_photographs, small_squares, tmp_path):
    done = command(
        "tests/one_process.py",
        "benchmarks/input.py",
        f"--data={large_photographs}",
        f"--small={small_squares}",
        f"--output={tmp_path}",
        "--scenario=squares,small",
        *QUICK,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "input.json").read_text())
    names = {scenario["name"]: scenario for scenario in report["scenarios"]}
    expected = {
        "squares": {"ours", "keras", "ceiling"},
        "small": {"ours", "calls", "2017", "keras", "ceiling"},
    }
    assert list(names) == list(expected)
    for name, scenario in names.items():
        found = {result["name"] for result in scenario["results"]}
        assert found == expected[name], scenario["notes"]
        side = 32 if name == "small" else 224
        for result in scenario["results"]:
            if result["name"] not in ("ceiling", "calls"):
                assert result["shape"] == [8, side, side, 3]
    written = (tmp_path / "input.md").read_text()
    assert written.count("\n| ours") == 3 and done.stdout.count("the 2017 way") == 1
    assert str(large_photographs) not in written


def test_input_skips_what_it_has_no_data_for(command, large_photographs, tmp_path):
    flags = (f"--data={large_photographs}", f"--output={tmp_path}", *QUICK)
    done = command("benchmarks/input.py", *flags, "--scenario=small")
    assert done.returncode == 0, done.stderr
    assert "skipped scenario small: no --small=FOLDER of small images" in done.stdout
    done = command("benchmarks/input.py", *flags, "--only=ours,abacus")
    assert done.returncode == 2 and "received abacus" in done.stderr
    done = command("benchmarks/input.py", "--data=/nowhere", f"--output={tmp_path}", *QUICK)
    assert done.returncode == 2 and done.stderr.startswith("error:")


@pytest.mark.slow
def test_starvation_has_a_row_for_every_feed_and_device(command, large_photographs, tmp_path):
    flags = ("--rates=500", "--networks=lenet5", "--only=2017,raw", f"--output={tmp_path}", *QUICK)
    words = ["tests/one_process.py", "benchmarks/starvation.py", f"--data={large_photographs}"]
    done = command(*words, *flags)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "starvation.json").read_text())
    (simulated,), (trained,) = report["simulated"], report["trained"]
    assert len(simulated["results"]) == len(trained["results"]) == 2
    for result in simulated["results"] + trained["results"]:
        assert 0 <= tables.summary(result)["waited"] <= 1
    written = (tmp_path / "starvation.md").read_text()
    assert written.count("ours, raw shards") == 2 and "never waiting" in written


def test_training_is_compared_by_medians_and_their_geometric_mean():
    def result(name, *rates):
        turned = [
            {"images": rate, "seconds": 1, "cpu": 1, "waited": 0, "peak_bytes": 7 * len(name)}
            for rate in rates
        ]
        return {"name": name, "label": name, "turns": turned}

    found = {
        "alexnet": [result("ours", 10, 40, 20), result("keras", 10), result("torch", 5)],
        "resnet50": [result("ours", 9), result("keras", 2)],
    }
    rows = train.table(found, ["ours", "keras", "torch"])
    assert rows[1] == ["alexnet", "20.0", "10.0", "5.0", "2.00", "4.00", "0.80"]
    assert rows[2] == ["resnet50", "9.0", "2.0", "", "4.50", "", "0.80"]
    assert rows[3][-3:] == ["3.00", "4.00", "0.80"]
    rows = train.table(found, ["keras", "ours"], {"alexnet": 0.01, "resnet50": 0.001})
    assert rows[1] == ["alexnet", "10.0", "20.0", "0.50", "10.0%"]
    assert rows[3] == ["geometric mean", "", "", "0.33", ""]


def test_operations_of_a_training_image_beside_a_peak(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which counting sets
    assert stacks.multiply_adds("cifar_resnet20", 32) == pytest.approx(40.8e6, rel=0.01)
    monkeypatch.setattr(stacks, "multiply_adds", feeds.area)
    shares = train.flops(["cifar_resnet20", "alexnet"], 1e12)
    assert shares == {"cifar_resnet20": 6 * 32**2 / 1e12, "alexnet": 6 * 227**2 / 1e12}


@pytest.mark.slow
def test_training_has_a_row_for_every_network(command, tmp_path):
    """With Keras; ours is measured by the dry run of `benchmarks.gpu`."""
    flags = ["--stacks=keras", "--batch_size=4", "--seconds=0.1", "--repeat=1"]
    words = ["benchmarks/train.py", "--networks=cifar_resnet20", f"--output={tmp_path}"]
    done = command(*words, *flags)
    assert done.returncode == 0, done.stderr
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("cifar_")]
    assert all(float(cell) > 0 for cell in row[1:])
    report = json.loads(next(tmp_path.glob("train-*-float32.json")).read_text())
    assert report["results"]["cifar_resnet20"]
    assert command("benchmarks/train.py", "--networks=abacus").returncode == 2
