import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy

from engine import checkpoints, runs
from runtime import files


def network(units=3):
    inputs = keras.Input((4,), name="images")
    hidden = keras.layers.Dense(units, name="hidden")(inputs)
    outputs = keras.layers.BatchNormalization(name="norm")(hidden)
    return keras.Model(inputs, {"logits": outputs})


def tensors(seed=0):
    generator = np.random.default_rng(seed)
    return {
        "b/kernel": generator.normal(size=(3, 2)).astype(np.float32),
        "a": np.array(7, np.int64),
    }


def saved(folder, seed=0, **about):
    path = folder / "x.safetensors"
    checkpoints.write(path, tensors(seed), {"step": 1, **about})
    return path


def test_what_is_written_is_read(tmp_path):
    checkpoint = checkpoints.read(saved(tmp_path, flags={"epochs": 3}))
    assert checkpoint.about["flags"] == {"epochs": 3}
    assert set(checkpoint.tensors) == {"a", "b/kernel"}
    for name, tensor in tensors().items():
        np.testing.assert_array_equal(checkpoint.tensors[name], tensor)
        assert checkpoint.tensors[name].dtype == tensor.dtype


def test_nothing_but_the_file_is_left(tmp_path):
    assert list(tmp_path.iterdir()) == []
    path = saved(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = saved(tmp_path)
    before = path.read_bytes()

    def fails(temporary):
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.replace(path, fails)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path):
    path = saved(tmp_path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        flipped = whole[position] ^ 1 << position % 8
        path.write_bytes(whole[:position] + bytes([flipped]) + whole[position + 1 :])
        with pytest.raises(ValueError, match="damaged|format version"):
            checkpoints.read(path)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged"):
            checkpoints.read(path)


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(OSError, match=r"x.safetensors: it takes 1 MB, 0 MB of the disk are free"):
        saved(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "about", ["[]", "7", '{"format_version": 2}', '{"format_version": 2, "sha256": [1]}', "{", ""]
)
def test_a_header_that_is_anything_is_refused(tmp_path, about):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(tensors(), path, {"convnets": about})
    with pytest.raises(ValueError, match="damaged|format version"):
        checkpoints.read(path)


def test_another_format_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 99)
    path = saved(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="format version 99"):
        checkpoints.read(path)


def test_assign_sets_every_variable_and_refuses_another_network(tmp_path):
    model, other = network(), network()
    path = tmp_path / "x.safetensors"
    checkpoints.write(path, checkpoints.values(checkpoints.named_variables(model)), {"step": 0})
    checkpoint = checkpoints.read(path)
    assert checkpoints.weights_digest(model) != checkpoints.weights_digest(other)
    checkpoints.assign(checkpoints.named_variables(other), checkpoint)
    assert checkpoints.weights_digest(model) == checkpoints.weights_digest(other)
    with pytest.raises(ValueError, match=r"another network: .*\(4, 5\), found \(4, 3\)"):
        checkpoints.assign(checkpoints.named_variables(network(5)), checkpoint)


def test_digest_is_of_all_weights_in_the_order_of_their_paths():
    model = network()
    before = checkpoints.weights_digest(model)
    model.get_layer("norm").moving_mean.assign([1.0, 2.0, 3.0])
    assert checkpoints.weights_digest(model) != before
    assert checkpoints.digest({"a": np.zeros(1), "b": np.ones(1)}) == checkpoints.digest(
        {"b": np.ones(1), "a": np.zeros(1)}
    )


def save_steps(run, *numbers, keep=9, best=()):
    for number in numbers:
        run.save(tensors(number), {"step": number}, keep=keep, best=number in best)


@pytest.fixture
def run(tmp_path):
    run = runs.Run(tmp_path / "run")
    run.write_settings({"flags": {}})
    return run


def test_the_newest_are_kept_and_the_best_survives(run):
    save_steps(run, 1, 2, 3, 4, keep=2, best=[1])
    assert [path.name for path in run.step_files()] == [
        "step-00000003.safetensors",
        "step-00000004.safetensors",
    ]
    assert run.find("best").about["step"] == 1
    assert run.find("last").about["step"] == 4
    assert run.find("3").about["step"] == 3


def test_a_kill_while_saving_leaves_no_step_without_its_best(run, monkeypatch):
    save_steps(run, 1, best=[1])

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "_link_or_copy", killed)
    with pytest.raises(KeyboardInterrupt):
        save_steps(run, 2, best=[2])
    assert run.find("best").about["step"] == 2
    assert run.find("last").about["step"] == 1


def test_a_damaged_checkpoint_takes_no_place_of_a_good_one(run):
    save_steps(run, 1, 3)
    (run.folder / "checkpoints" / "step-00000003.safetensors").write_bytes(b"")
    save_steps(run, 2, keep=1)
    assert [path.name for path in run.step_files()] == ["step-00000002.safetensors"]


def test_only_one_training_writes_a_folder(tmp_path):
    first = runs.Run(tmp_path / "run").lock()
    with pytest.raises(ValueError, match="another training is writing .*run"):
        runs.Run(tmp_path / "run").lock()
    first.close()
    runs.Run(tmp_path / "run").lock().close()


def test_the_best_is_used_when_all_others_are_damaged(run):
    save_steps(run, 1, 2, best=[1])
    for path in run.step_files():
        path.unlink()
        path.write_bytes(b"")
    assert run.last(lambda line: None).about["step"] == 1


def test_litter_of_killed_processes_is_removed(run):
    save_steps(run, 1)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file = run.folder / "checkpoints" / f".step-00000002.safetensors.{ended.pid}.tmp"
    file.write_bytes(b"half")
    folder = run.folder / "export" / f".keras.{ended.pid}.tmp"  # of a killed export.py
    (folder / "assets").mkdir(parents=True)
    run.remove_litter()
    assert not file.exists() and not folder.exists() and len(run.step_files()) == 1


def test_what_a_living_process_is_writing_stays(run):
    save_steps(run, 1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        folder = run.folder / "export" / f".keras.{other.pid}.tmp"
        folder.mkdir(parents=True)
        run.remove_litter()
        assert folder.exists()
    run.remove_litter()
    assert not folder.exists()


def test_best_is_the_last_where_nothing_was_validated(run):
    save_steps(run, 1, 2)
    assert run.find("best").about["step"] == 2


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(run):
    save_steps(run, 1, 2)
    newest = run.step_files()[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    said = []
    assert run.last(said.append).about["step"] == 1
    assert newest.name in said[0]


def test_when_all_are_damaged_it_is_an_error(run):
    save_steps(run, 1, 2)
    for path in run.step_files():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="all checkpoints"):
        run.last(lambda line: None)


def test_missing_checkpoints_and_runs(run, tmp_path):
    assert run.last(print) is None
    for which in ("best", "last", "7"):
        with pytest.raises(FileNotFoundError):
            run.find(which)
    with pytest.raises(ValueError, match="expected best, last"):
        run.find("newest")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        runs.Run(tmp_path / "nowhere").find("best")


def test_metrics_rows_after_a_step_are_dropped_and_those_of_an_epoch_replaced(run):
    row = dict.fromkeys(runs.METRICS, 0.5)
    for epoch, step in ((1, 10), (2, 14), (2, 17), (2, 20), (3, 30)):  # two stops in epoch 2
        run.add_metrics({**row, "epoch": epoch, "step": step})
    rows = [(int(each["epoch"]), int(each["step"])) for each in run.metrics()]
    assert rows == [(1, 10), (2, 20), (3, 30)]
    run.keep_metrics(20)
    run.add_metrics({**row, "epoch": 3, "step": 30})
    assert [int(each["step"]) for each in run.metrics()] == [10, 20, 30]


def test_folders_are_numbered_and_the_newest_run_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no run found"):
        runs.newest()
    first = runs.Run(runs.make_folder("digits-lenet5"))
    first.write_settings({})
    second = runs.Run(runs.make_folder("digits-lenet5"))
    second.write_settings({})
    assert second.folder.name == "digits-lenet5-2"
    with pytest.raises(FileNotFoundError, match="expected a folder with a checkpoint"):
        runs.newest(saved=True)
    save_steps(first, 1)
    assert runs.newest().folder == first.folder
    later = time.time() + 10
    os.utime(second.folder / "run.json", (later, later))
    assert runs.newest().folder == second.folder  # with which --resume goes on
    assert runs.newest(saved=True).folder == first.folder
    assert runs.open_checkpoint(None, "best")[0] == first.folder


def removed_at(monkeypatch, place, name, path):
    """Lets a file be removed, as a training at work does, right before a function sees it."""
    function = getattr(place, name)

    def removing(*args, **options):
        if args and args[0] == path:
            path.unlink(missing_ok=True)
        return function(*args, **options)

    monkeypatch.setattr(place, name, removing)


def test_a_checkpoint_that_is_removed_between_listing_and_looking_is_no_error(run, monkeypatch):
    run.write_settings({})
    save_steps(run, 1, 2)
    removed_at(monkeypatch, Path, "stat", run.step_files()[0])
    assert run.last_change > 0
    assert [path.name for path in run.step_files()] == ["step-00000002.safetensors"]


def test_where_the_last_checkpoint_is_removed_meanwhile_a_newer_one_is_read(run, monkeypatch):
    save_steps(run, 1)
    (old,) = run.step_files()
    read = checkpoints.read

    def overtaken(path):
        if path == old and old.exists():
            save_steps(run, 2)
            old.unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(checkpoints, "read", overtaken)
    assert run.last(pytest.fail).about["step"] == 2


def test_a_checkpoint_that_is_removed_while_it_is_read_is_not_called_damaged(run, monkeypatch):
    save_steps(run, 1)
    (path,) = run.step_files()
    removed_at(monkeypatch, checkpoints.safetensors, "safe_open", path)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        checkpoints.read(path)


def test_one_checkpoint_file_is_enough(run, tmp_path):
    save_steps(run, 1, best=[1])
    file = run.folder / "checkpoints" / "best.safetensors"
    for place, which in ((None, str(file)), (str(file), "best"), (str(run.folder), "best")):
        folder, checkpoint = runs.open_checkpoint(place, which)
        assert (folder, checkpoint.about["step"]) == (run.folder, 1)
    lonely = tmp_path / "moved.safetensors"
    lonely.write_bytes(file.read_bytes())
    folder, checkpoint = runs.open_checkpoint(None, str(lonely))
    assert (folder, checkpoint.about["step"]) == (tmp_path, 1)


WRITERS = {
    "safetensors": lambda path: checkpoints.write(path, {"weights": np.zeros(3)}, {}),
    "text": lambda path: files.replace(path, lambda new: new.write_text("x")),
    "private": lambda path: files.replace(
        path, lambda new: os.close(os.open(new, os.O_CREAT | os.O_WRONLY, 0o600))
    ),
    "data": lambda path: files.write(path, b"x"),
}


@pytest.mark.parametrize(
    "folder, umask, expected",
    [
        (0o755, 0o022, 0o644),
        (0o777, 0o077, 0o600),
        (0o775, 0o022, 0o644),
        (0o775, 0o002, 0o664),
        (0o777, 0o000, 0o666),
    ],
)
@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_is_as_open_as_the_umask_says(kind, folder, umask, expected, tmp_path):
    tmp_path.chmod(folder)
    before = os.umask(umask)
    try:
        for _ in range(2):  # a new one, and in place of one
            WRITERS[kind](tmp_path / "x")
            assert (tmp_path / "x").stat().st_mode & 0o777 == expected
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_a_checkpoint_is_no_more_open_than_its_folder(tmp_path):
    tmp_path.chmod(0o700)
    checkpoints.write(tmp_path / "x", {"weights": np.zeros(3)}, {})
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_the_best_is_on_the_disk_once(run):
    save_steps(run, 1, best=[1])
    folder = run.folder / "checkpoints"
    assert (folder / "best.safetensors").samefile(folder / "step-00000001.safetensors")


def test_a_run_and_a_checkpoint_that_is_not_its_own_are_refused(run, tmp_path):
    save_steps(run, 1)
    own = run.folder / "checkpoints" / "step-00000001.safetensors"
    other = tmp_path / "other.safetensors"
    other.write_bytes(own.read_bytes())
    opened = [
        runs.open_checkpoint(*named)[1].path
        for named in ((str(run.folder), str(own)), (None, str(other)), (str(other), "best"))
    ]
    assert opened == [own, other, other]
    with pytest.raises(ValueError, match=r"a checkpoint of .*, received --checkpoint=.*other"):
        runs.open_checkpoint(str(run.folder), str(other))
    with pytest.raises(ValueError, match="is a checkpoint itself, received --checkpoint=last"):
        runs.open_checkpoint(str(other), "last")
