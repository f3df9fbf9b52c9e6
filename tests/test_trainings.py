"""Trainings of benchmarks/ are kept run by run, planned in core hours, and never done twice."""

import hashlib
import json
import signal
from pathlib import Path

import pytest
import trained

from benchmarks import execution, finetuning, kept, plan, scripts, shipped, trainings
from engine import checkpoints


def lenet(seed=0, *words, data="mnist"):
    return trainings.of_words(data, ["--model=lenet5", "--epochs=2", *words], seed)


def test_a_line_that_was_cut_off_is_left_out_and_spoils_no_other(tmp_path):
    path, said = tmp_path / "new" / "kept.jsonl", []
    assert kept.read(path) == []
    kept.append(path, {"a": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:4])
    assert kept.read(path, said.append) == [{"a": 1}]
    assert said == ["kept.jsonl: line 2 is damaged and left out, expected a JSON object"]
    kept.append(path, {"b": 2})
    assert kept.read(path, said.append) == [{"a": 1}, {"b": 2}] and len(said) == 2


def test_a_training_is_its_flags_whether_typed_or_from_a_file():
    recipe = trainings.of_words("mnist", ["--flagfile=recipes/mnist_lenet5.flags"], 0)
    typed = [word for word in reversed(recipe.flags) if "epochs" not in word]
    assert recipe == trainings.of_words("mnist", ["--epochs=7", *typed, "--epochs=20"], 0)
    assert "--data=tfds:mnist" not in recipe.flags and recipe.images == 20 * 60_000
    assert recipe.shown() == (
        "python train.py --flagfile=recipes/mnist_lenet5.flags --data=MNIST --seed=0"
    )
    assert trainings.NO_RECIPE in lenet().shown()
    assert lenet(0, "--max_steps=5").images == 5 * 128
    others = [lenet(1), lenet(0, data="cifar10"), lenet(0, "--momentum=0")]
    names = {training.name for training in (lenet(), recipe, *others)}
    assert len(names) == len({lenet(), recipe, *others}) == 5


def test_results_of_other_images_do_not_mix(tmp_path):
    path = tmp_path / "trainings.jsonl"
    kept.append(path, trained.result(lenet()))
    assert set(trainings.read(path)) == {lenet()}
    places = trained.places(tmp_path, mnist=trained.shards(tmp_path / "mnist", "0" * 64))
    with pytest.raises(ValueError, match="on mnist with the fingerprint ffffffffffff, received 00"):
        execution.perform(lenet(1), places, (1,))
    kept.append(path, trained.result(lenet(1), fingerprint="0" * 64))
    with pytest.raises(ValueError, match="results of other images are not mixed"):
        trainings.read(path)
    with pytest.raises(ValueError, match="expected the folder of mnist to train, received none"):
        execution.perform(lenet(), trained.places(tmp_path / "none"), (1,))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="expected shards of mnist .*, received .*folder"):
        places = trained.places(tmp_path / "none", mnist=tmp_path / "folder")
        execution.perform(lenet(), places, (1,))


@pytest.fixture
def started(monkeypatch):
    """The scripts that were started: a training that ends at once, or is stopped, and tests."""
    lines = []

    def run(script, *words, seconds=None):
        lines.append([script, *words])
        folder = next((w.partition("=")[2] for w in words if w.startswith("--run_dir=")), words[0])
        if script == "test.py":
            views = int(words[-1].partition("=")[2])
            tested = {"top1_accuracy": 0.5 + views / 1000 + 1e-7, "examples": 1000}
            (trainings.Path(folder) / "test.json").write_text(json.dumps(tested))
        elif "--resume" in words:
            with open(f"{folder}/train.log", "a") as file:
                file.write(f"done: step 20  weights sha256 {trained.DIGEST}\n")
        else:
            trained.run_folder(trainings.Path(folder), ended=seconds is None)
        return seconds is None

    monkeypatch.setattr(scripts, "run", run)
    return lines


def test_a_training_is_tested_with_all_views_and_kept(tmp_path, started):
    places = trained.places(tmp_path, mnist=trained.shards(tmp_path / "mnist"))
    assert execution.perform(lenet(3), places, (1, 2))
    folder = f"{tmp_path}/runs/{lenet(3).name}"
    data = f"--data={tmp_path}/mnist"
    command = [trainings.NO_RECIPE, "--model=lenet5", "--epochs=2", "--seed=3"]
    assert started == [
        ["train.py", *command, data, f"--run_dir={folder}"],
        ["test.py", folder, data, "--split=test", "--crops=1"],
        ["test.py", folder, data, "--split=test", "--crops=2"],
    ]
    (result,) = trainings.read(places.results).values()
    assert result["train"] == [0.1235, 0.2235] and "validation" not in result
    assert result["tests"] == {"1": {"top1": 0.501, "n": 1000}, "2": {"top1": 0.502, "n": 1000}}
    assert result["images"] == 200 and result["images_per_second"] == 150
    assert result["minutes"] == round((1 + 0.5) / 60, 2) and result["digest"] == trained.DIGEST


def test_a_stopped_training_goes_on_in_another_folder_from_its_newest_checkpoint(tmp_path, started):
    places = trained.places(tmp_path, mnist=trained.shards(tmp_path / "mnist"))
    assert not execution.perform(lenet(), places, (1,), seconds=1)
    saved = places.running / lenet().name
    names = sorted(path.name for path in saved.rglob("*") if path.is_file())
    assert names == ["metrics.csv", "run.json", "step-00000020.safetensors", "train.log"]
    for path in filter(Path.is_file, saved.rglob("*")):
        assert str(tmp_path).encode() not in path.read_bytes()
    newest = checkpoints.read(saved / "checkpoints" / names[2])
    assert set(newest.tensors) == {"model/w", "optimizer/w"} and newest.about["step"] == 20
    assert not places.results.exists()
    assert not execution.perform(lenet(1), places, (1,), seconds=1)

    execution.shutil.rmtree(places.runs)
    assert execution.perform(lenet(), places, (1,))
    assert [line[:2] for line in started[-2:]] == [
        ["train.py", "--resume"],
        ["test.py", str(places.runs / lenet().name)],
    ]
    assert set(trainings.read(places.results)) == {lenet()}
    assert not saved.exists() and (places.running / lenet(1).name).exists()


def test_a_network_is_shipped_without_optimizer_and_places(tmp_path, capsys):
    folder, file = trained.run_folder(tmp_path / "run"), tmp_path / "shipped.safetensors"
    shipped.main([str(folder), str(file)])
    copy = checkpoints.read(file)
    assert set(copy.tensors) == {"model/w"} and str(tmp_path).encode() not in file.read_bytes()
    assert copy.about["flags"] == {"data": "pictures", "run_dir": "run"}
    assert hashlib.sha256(file.read_bytes()).hexdigest() in capsys.readouterr().out


def test_a_run_that_has_not_ended_is_not_kept(tmp_path):
    folder = trained.run_folder(tmp_path / "run", ended=False)
    with pytest.raises(ValueError, match="has not ended, expected a line 'done: ...'"):
        trainings.summary(lenet(), folder)


def test_runs_of_train_py_itself_are_kept_once_with_the_recipe_they_took(tmp_path, started, capsys):
    folder = trained.run_folder(tmp_path / "run")
    words = ["mnist", str(folder), "--views", "1", "--results", f"{tmp_path}/kept.jsonl"]
    trainings.main(words)
    trainings.main(words)
    recipe = trainings.of_words(
        "mnist", ["--flagfile=recipes/lenet5.flags", "--model=lenet5", "--epochs=2"], 3
    )
    assert set(trainings.read(tmp_path / "kept.jsonl")) == {recipe}
    assert "kept already" in capsys.readouterr().out and len(started) == 1
    trainings.main([*words, "--views", "6"])
    assert set(trainings.read(tmp_path / "kept.jsonl")[recipe]["tests"]) == {"1", "6"}


def test_a_run_of_other_flags_than_its_flag_file_has_now_is_not_kept(tmp_path, capsys):
    folder = trained.run_folder(tmp_path / "run")
    settings = json.loads((folder / "run.json").read_text())
    settings["flags"]["learning_rate"] = 0.1
    (folder / "run.json").write_text(json.dumps(settings))
    with pytest.raises(SystemExit):
        trainings.main(["mnist", str(folder), "--results", f"{tmp_path}/kept.jsonl"])
    assert "had --learning_rate=0.1, expected 0.05" in capsys.readouterr().err


def test_the_newer_checkpoint_goes_on_and_is_never_replaced_by_an_older(tmp_path, started):
    places = trained.places(tmp_path, mnist=trained.shards(tmp_path / "mnist"))
    folder, saved = places.runs / lenet().name, places.running / lenet().name
    trained.run_folder(saved, epochs=3, ended=False)
    trained.run_folder(folder, ended=False)
    execution.put_aside(folder, saved)
    assert (saved / "checkpoints" / "step-00000030.safetensors").exists()
    assert not execution.perform(lenet(), places, (1,), seconds=1)
    assert (folder / "checkpoints" / "step-00000030.safetensors").exists()


def job(training, group="a"):
    return plan.Job(group, "lenet", training)


def test_a_plan_counts_what_is_left_at_the_pace_of_the_same_network(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "measured_rate", lambda training, say: 50.0)
    monkeypatch.setattr(plan, "cores", lambda: 4)
    places = trained.places(tmp_path)
    jobs = [job(lenet(seed)) for seed in (0, 1)]
    jobs += [job(lenet(0), "b"), job(lenet(0, "--norm=batch"), "b")]
    kept.append(places.results, trained.result(lenet(0)))
    wanted = plan.Plan(jobs, places)
    assert wanted.pace(lenet(1, "--learning_rate=7")) == 100
    assert wanted.seconds(lenet(1)) == 2 * 60_000 / 100 + plan.OVERHEAD
    assert wanted.seconds(lenet(0)) == 0 and wanted.seconds(jobs[-1].training) is None
    assert wanted.table()[2] == ["b", "2", "1", "2", "1 not measured"]

    said = []
    wanted.measure(jobs, said.append)
    assert said == ["measuring --model=lenet5 --norm=batch"]
    again = plan.Plan(jobs, places)
    again.measure(jobs, said.append)
    assert len(said) == 1
    hours = [4 * (1200 + plan.OVERHEAD) / 3600, 4 * (2400 + plan.OVERHEAD) / 3600]
    assert again.table()[1:] == [
        ["a", "1", "1", "2", f"{hours[0]:.1f}"],
        ["b", "2", "1", "2", f"{hours[1]:.1f}"],
        ["all", "2", "1", "3", f"{sum(hours):.1f}"],
    ]
    trained.run_folder(places.runs / lenet(1).name, epochs=2)  # 200 of 120,000 images
    assert again.seconds(lenet(1)) == pytest.approx(119_800 / 100 + plan.OVERHEAD)


def test_a_pace_of_another_machine_does_not_count(tmp_path):
    places = trained.places(tmp_path)
    other = {"cpu": "another", "cores": 1, "gpus": []}
    kept.append(places.results, trained.result(lenet(0), machine=other))
    assert plan.Plan([], places).pace(lenet(1)) is None


def test_what_fits_is_trained_once_and_what_does_not_is_named(tmp_path, monkeypatch):
    places, done, said = trained.places(tmp_path), [], []
    long = lenet(0, "--epochs=99")
    kept.append(places.results, trained.result(lenet(0)))

    def perform(training, places, views, seconds=None):
        done.append((training, seconds))
        if seconds is None:
            kept.append(places.results, trained.result(training))
        return seconds is None

    monkeypatch.setattr(execution, "perform", perform)
    jobs = [job(long), job(lenet(0)), job(lenet(1)), job(lenet(1), "b")]
    pages = []
    wanted = plan.Plan(jobs, places)
    wanted.work(1, after=lambda: pages.append(len(wanted.results)), say=said.append)
    assert done == [(lenet(1), None)] and pages == [2]
    assert said == ["a: lenet, seed 1: 20 minutes", "skipped: a: lenet, seed 0 (16.51 hours)"]

    wanted.work(1, say=said.append, begin=True)
    assert [training for training, _ in done] == [lenet(1), long]
    assert 3500 < done[1][1] <= 3600 and said[-1] == "a: lenet, seed 0: until the time is over"
    wanted.work(0, say=said.append, begin=True)
    assert len(done) == 2 and said[-1].startswith("skipped: a: lenet, seed 0")


def test_a_script_ends_by_itself_or_is_stopped_or_fails():
    assert scripts.run("-c", "pass")
    wait = "import signal, sys, time; signal.signal(2, lambda *_: sys.exit(130)); time.sleep(60)"
    assert not scripts.run("-c", wait, seconds=1)
    with pytest.raises(RuntimeError, match="-c 'raise SystemExit.3.' ended with exit code 3"):
        scripts.run("-c", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match=f"exit code {-signal.SIGKILL}"):
        scripts.run("-c", "import os; os.kill(os.getpid(), 9)", seconds=60)


def test_kept_files_of_the_project_are_whole():
    said = []
    assert trainings.read(trainings.RESULTS / trainings.FILE, said.append)
    runs = kept.read(trainings.RESULTS / "finetuning.jsonl", said.append)
    assert finetuning.page(runs) == (trainings.RESULTS / "finetuning.md").read_text()
    assert not said
