"""The scripts as a user runs them, each in its own process."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import DONE, PIPES, ROOT, curves, metrics, step_files

import train
from data.conversion import conversion
from data.images import decode
from data.sources import sources
from engine import runs
from runtime import console, flags
from training.recipe import Recipe, Running


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A finished run with no flags but where to write; the process and the folder."""
    run_dir = tmp_path_factory.mktemp("runs") / "digits"
    command = [sys.executable, "train.py", f"--run_dir={run_dir}"]
    done = subprocess.run(command, cwd=ROOT, **PIPES)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr, run_dir


def best_accuracy(run_dir):
    return max(float(row["validation_top1_accuracy"]) for row in metrics(run_dir))


def test_the_digits_are_learnt_on_a_quiet_console(digits):
    output, errors, run_dir = digits
    assert best_accuracy(run_dir) >= 0.975
    assert DONE.fullmatch(output.splitlines()[-1])
    noise = re.compile("oneDNN|cuda|absl::InitializeLog|WARNING|Traceback")
    assert not noise.search(output + errors), output + errors


def test_the_run_folder_is_complete(digits):
    *_, run_dir = digits
    settings = json.loads((run_dir / "run.json").read_text())
    assert settings["class_names"] == [str(digit) for digit in range(10)]
    assert settings["flags"]["model"] == "lenet5"
    assert settings["flags"]["batch_size"] == 128
    assert {"versions", "device", "precision", "data", "git_commit"} <= set(settings)
    rows = metrics(run_dir)
    assert [int(row["epoch"]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(float(row["input_wait_fraction"]) <= 1 for row in rows)
    assert len(step_files(run_dir)) == 2
    assert (run_dir / "checkpoints" / "best.safetensors").exists()


def test_tensorboard_finds_curves_pictures_flags_and_graph(digits):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    *_, run_dir = digits
    shown = {}
    for split in ("train", "validation"):
        events = EventAccumulator(str(run_dir / split), {"tensors": 0})
        events.Reload()
        shown[split] = events.Tags()
    assert {"loss", "top1_accuracy", "top5_accuracy"} <= set(shown["validation"]["tensors"])
    expected = {
        "loss",
        "top1_accuracy",
        "top5_accuracy",
        "learning_rate",
        "images_per_second",
        "input_wait_fraction",
        "weight_norm",
        "gradient_norm",
        "augmented",
        "filters",
        "flags",
    }
    assert expected <= set(shown["train"]["tensors"])
    assert shown["train"]["graph"]


def test_test_equals_the_best_row_whatever_the_batch_size(digits, command):
    *_, run_dir = digits
    done = command("test.py", run_dir, "--batch_size=77")
    assert done.returncode == 0, done.stderr
    result = json.loads((run_dir / "test.json").read_text())
    assert result["top1_accuracy"] == pytest.approx(best_accuracy(run_dir), abs=1e-9)
    assert (result["examples"], result["crops"], result["split"]) == (360, 1, "validation")
    expected = f"top-1 {100 * result['top1_accuracy']:.2f} %  top-5 100.00 %  (n = 360)"
    assert done.stdout.splitlines()[-1] == expected


def test_classify_names_the_samples(digits, command, tmp_path):
    *_, run_dir = digits
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    samples = sorted((ROOT / "data" / "samples").glob("digit_*.png"))
    done = command("classify.py", f"--run_dir={run_dir}", "--json", text, *samples)
    assert done.returncode == 1
    bad, *rows = map(json.loads, done.stdout.splitlines())
    assert set(bad) == {"image", "error"} and bad["image"] == str(text)
    named = [row["predictions"][0]["class"] for row in rows]
    assert len(rows) == 10 and sum(name == str(digit) for digit, name in enumerate(named)) >= 9
    assert all(len(row["predictions"]) == 5 for row in rows)


def test_one_checkpoint_file_is_enough_to_classify(digits, command, tmp_path):
    *_, run_dir = digits
    shutil.copy(run_dir / "checkpoints" / "best.safetensors", tmp_path / "net.safetensors")
    image = ROOT / "data" / "samples" / "digit_3.png"
    done = command("classify.py", image, f"--checkpoint={tmp_path}/net.safetensors", "--top_k=2")
    assert done.returncode == 0, done.stderr
    first, *classes = done.stdout.splitlines()
    assert first == str(image) and len(classes) == 2 and classes[0].split()[-1] == "3"


def test_a_finished_run_says_so_again(digits, finished):
    output, _, run_dir = digits
    before = step_files(run_dir)
    assert finished(run_dir, "--resume") == DONE.search(output).groups()
    assert step_files(run_dir) == before


def test_networks_options_and_heads_are_kept_in_the_checkpoint(photographs, tmp_path, command):
    words = ["--model=dsn", "--dropout=0.3", "--batch_size=4"]
    run_dir = tmp_path / "run"
    words += [f"--data={photographs}", f"--run_dir={run_dir}", "--max_steps=1"]
    assert command("train.py", *words).returncode == 0
    checkpoint = runs.Run(run_dir).find("last")
    assert checkpoint.about["network"]["dropout"] == 0.3
    assert any(name.startswith("model/aux2") for name in checkpoint.tensors)
    done = command("test.py", run_dir)
    assert done.returncode == 0 and "(n = 6)" in done.stdout, done.stderr


def test_keras_weights_are_used_without_a_run_and_to_start_from(
    photographs, tmp_path, command, finished
):
    file = tmp_path / "mobilenet.weights.h5"
    keras.applications.MobileNet((64, 64, 3), alpha=0.25, weights=None, classes=1000).save_weights(
        file
    )
    image = next(photographs.rglob("*.jpg"))
    words = ["--model=mobilenet_025", f"--init_from={file}"]
    done = command("classify.py", image, "--json", *words)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["predictions"]) == 5
    words += ["--image_size=64", "--batch_size=4", "--max_steps=1"]
    with_weights = finished(tmp_path / "a", f"--data={photographs}", *words)
    file.unlink()
    assert finished(tmp_path / "a", "--resume") == with_weights


def test_a_run_without_a_checkpoint_starts_over_and_says_so(digits, tmp_path, command):
    *_, run_dir = digits
    shutil.copytree(run_dir, tmp_path / "run", ignore=lambda folder, names: ["checkpoints"])
    done = command("train.py", "--resume", f"--run_dir={tmp_path}/run", "--max_steps=2")
    assert done.returncode == 0, done.stderr
    assert "before its first checkpoint: from step 0" in done.stdout
    assert "done: step 2 " in done.stdout


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(digits, tmp_path, command):
    output, _, run_dir = digits
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    newest = copy / "checkpoints" / step_files(copy)[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    again = command("train.py", "--resume", f"--run_dir={copy}")
    assert newest.name in again.stdout and "damaged" in again.stdout
    assert DONE.search(again.stdout).groups() == DONE.search(output).groups()


def listing(root):
    """All files but those that tools leave behind."""
    found = set()
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name[0] not in "._"]
        found |= {os.path.join(folder, name) for name in files}
    return found


def wrong(*words, holds, script="train.py"):
    return pytest.param(script, words, holds, id=" ".join([script, *words])[:60])


WRONG = [
    wrong("--data=/nonexistent", holds="/nonexistent"),
    wrong("--data={empty}", holds="{empty}"),
    wrong("--data={one}", holds="class"),
    wrong("--model=alexnot", holds="alexnot"),
    wrong("--augment=nothing_like_it", holds="nothing_like_it"),
    wrong("--batch_size=0", holds="batch_size"),
    wrong("--json", holds="--meter"),
    wrong("--batch_size=2000", holds="1437 training images"),
    wrong("--learning_rate=-1", holds="learning_rate"),
    wrong("--milestones=half", holds="milestones"),
    wrong("--milestones=30,60", holds="30,60"),
    wrong("--learning_rate=nan", holds="learning_rate"),
    wrong("--seed=5000000000", holds="seed"),
    wrong("--image_size=3", "--model=alexnet", holds="3"),
    wrong("{photographs}", holds="--data={photographs}"),
    wrong("--activation=silly", holds="silly"),
    wrong("--init_from=/nowhere.h5", "--model=mobilenet_025", holds="/nowhere.h5"),
    wrong("--init_from=keras", holds="lenet5"),
    wrong("data/samples/digit_1.png", "--model=vgg16", script="classify.py", holds="init_from"),
    wrong("--width=2", holds="width"),
    wrong("--no_such_flag=1", holds="no_such_flag"),
    wrong("--resume", "--run_dir={empty}/none", holds="none"),
    wrong("--run_dir={run}", holds="run"),
    wrong("--resume", "--run_dir={run}", "--model=alexnet", holds="--model=lenet5"),
    wrong("--resume", "--run_dir={run}", "--epochs=99", holds="--init_from={run}"),
    wrong("{empty}/none", script="test.py", holds="none"),
    wrong("{run}", "--crops=3", script="test.py", holds="crops"),
    wrong("{run}", "--data={photographs}", script="test.py", holds="classes"),
    wrong("{run}", "--split=test", script="test.py", holds="test"),
    wrong("--run_dir={run}", script="classify.py", holds="image"),
    wrong("--run_dir={empty}/none", "data/samples/digit_1.png", script="classify.py", holds="none"),
    wrong("--run_dir={run}", "nowhere.png", script="classify.py", holds="nowhere.png"),
]


@pytest.mark.parametrize("script, words, holds", WRONG)
def test_wrong_input_is_one_error_line(
    script, words, holds, digits, photographs, command, tmp_path
):
    places = {"empty": tmp_path / "empty", "one": tmp_path / "one", "run": digits[2]}
    places["photographs"] = photographs
    places["empty"].mkdir()
    shutil.copytree(photographs / "class_0", places["one"] / "a")
    before = listing(ROOT), listing(digits[2])
    done = command(script, *(word.format(**places) for word in words))
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and holds.format(**places) in errors[0], done.stderr
    assert "Traceback" not in done.stderr
    assert (listing(ROOT), listing(digits[2])) == before


def test_weights_that_are_not_finite_are_not_saved(tmp_path, command):
    done = command("train.py", "--learning_rate=1e38", "--max_steps=1", f"--run_dir={tmp_path}/run")
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "step 0, learning rate 1e+38" in errors[0]
    assert step_files(tmp_path / "run") == []
    header, *rows = (tmp_path / "run" / "step-00000000.csv").read_text().splitlines()
    assert header == "number,filename,label" and len(rows) == 128


def test_a_run_that_is_not_exact_says_so(tmp_path, command):
    """As on a GPU with the fastest kernels."""
    script = tmp_path / "inexact.py"
    script.write_text("""
import sys
from engine import devices
devices.is_exact = lambda choice: choice != "off"
import train
train.main(sys.argv)""")
    run = command(script, "--max_steps=1", "--deterministic=off", f"--run_dir={tmp_path / 'run'}")
    before, said, _ = run.stdout.partition("not exact: with --deterministic=off on a GPU, ")
    assert said and "step 1" not in before
    assert json.loads((tmp_path / "run" / "run.json").read_text())["device"]["exact"] is False


def test_a_rollback_goes_on_slower_from_the_last_checkpoint(tmp_path, command):
    """Weight decay alone multiplies the weights by -9 in each step; slower, by 0."""
    words = ["--learning_rate=0.1", "--weight_decay=100", "--momentum=0", "--schedule=constant"]
    words += ["--checkpoint_steps=5", "--max_steps=30", f"--run_dir={tmp_path}/run"]
    done = command("train.py", *words)
    assert done.returncode == 1 and "not finite at step" in done.stderr
    assert step_files(tmp_path / "run")[-1] == "step-00000015.safetensors"
    done = command("train.py", "--resume", f"--run_dir={tmp_path}/run", "--on_nan=rollback")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^warning: .* back to step 15 with 0.1 of the learning rate$", done.stdout, re.M
    )
    assert DONE.fullmatch(done.stdout.splitlines()[-1]).group(1) == "30"
    rates = [rate for _, rate in curves(tmp_path / "run")["train/learning_rate"]]
    assert rates[0] == np.float32(0.1) and rates[-1] == np.float32(0.01)


def test_a_damaged_record_is_named(photographs, tmp_path, command):
    source = sources.open_source(photographs, validation_fraction=0.0)
    conversion.convert(source, tmp_path / "shards", decode.Storage(64), shards=2, progress=False)
    path = tmp_path / "shards" / "train-00001-of-00002.tfrecord"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    words = [f"--data={tmp_path}/shards", "--model=lenet5", "--batch_size=8", "--epochs=1"]
    done = command("train.py", *words, f"--run_dir={tmp_path}/run")
    assert done.returncode == 1
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "damaged record in" in error and f"{path.name} record 23 (train)" in error


def test_one_batch_is_learnt_or_a_reason_to_warn(tmp_path, command):
    words = ["train.py", "--overfit_batch", "--batch_size=16", "--max_steps=60"]
    done = command(*words, f"--run_dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert re.search("^one batch, .* top-1 100.00 %: the network can learn$", done.stdout, re.M)
    words += ["--max_steps=2", "--learning_rate=1e-9"]
    done = command(*words, f"--run_dir={tmp_path}/slow")
    assert done.returncode == 0, done.stderr
    assert re.search("^warning: one batch, .* expected nearly 100 %", done.stdout, re.M)


@pytest.mark.parametrize(
    "words, rate",
    [
        (["--optimizer=adam"], 1e-3),  # recipes/lenet5.flags says 0.05
        (["--optimizer=momentum"], 0.05),
        (["--optimizer=adam", "--learning_rate=0.01"], 0.01),
        (["--flagfile=recipes/lenet5.flags", "--optimizer=adam"], 1e-3),
        (["--optimizer", "adam", "--flagfile", "recipes/lenet5.flags"], 1e-3),
        (["-flagfile=recipes/lenet5.flags", "-optimizer=adam", "-learning_rate", "0.02"], 0.02),
        (["--flagfile=recipes/lenet5.flags"], 0.05),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_recipes_learning_rate_is_for_its_own_optimizer(words, rate):
    argv = ["train.py", *words]
    assert console.parse(argv) == []
    settings = flags.value_of(Recipe), flags.value_of(Running)
    given, messages = flags.given(Recipe, Running), io.StringIO()
    recipe, _ = train.with_recipe_file(argv, *settings, given, messages)
    is_default = rate == 1e-3
    assert recipe.learning_rate == (None if is_default else rate)
    line = "learning rate: 0.001, the default of adam; 0.05 is for momentum"
    assert (line in messages.getvalue().splitlines()) is is_default


def test_a_default_learning_rate_is_kept_in_the_run(tmp_path, command):
    words = ["train.py", "--optimizer=adam", "--max_steps=1", f"--run_dir={tmp_path}/run"]
    for resume in ([], ["--resume"]):  # the same flags are fine
        done = command(*words, *resume)
        assert done.returncode == 0, done.stderr
        assert runs.Run(tmp_path / "run").settings()["flags"]["learning_rate"] == 1e-3


def test_a_missing_image_is_an_error_among_others(digits, command):
    image = ROOT / "data" / "samples" / "digit_1.png"
    done = command("classify.py", f"--run_dir={digits[2]}", "--json", "nowhere.png", image)
    assert done.returncode == 1
    assert [set(json.loads(line)) for line in done.stdout.splitlines()] == [
        {"image", "error"},
        {"image", "predictions"},
    ]


@pytest.mark.parametrize("script", ["train.py", "test.py", "classify.py", "export.py"])
def test_help_explains_and_exits_with_0(script, command):
    done = command(script, "--help")
    assert done.returncode == 0
    assert "python " + script in done.stdout and "--threads" in done.stdout


def listening(process):
    """Local addresses on which a process listens."""
    sockets = set()
    for link in Path(f"/proc/{process.pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            sockets.add(os.readlink(link))
    rows = [line.split() for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}")]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]


@pytest.mark.slow
def test_nothing_listens_on_the_network(digits, server, tmp_path):
    place = f"--run_dir={digits[2]}"
    commands = [
        ["train.py", f"--run_dir={tmp_path}/run", "--epochs=3"],
        ["test.py", digits[2]],
        ["classify.py", place, ROOT / "data" / "samples"],
    ]
    running = [server.start(*each) for each in commands]
    looks = 0
    while any(process.poll() is None for process in running):
        for process in running:
            assert listening(process) == []
        looks += 1
        time.sleep(0.05)
    assert looks > 20
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors


def test_a_listening_socket_would_be_seen():
    code = "import socket; s = socket.create_server(('', 0)); print(1, flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, **PIPES)
    process.stdout.readline()
    assert len(listening(process)) == 1
    process.communicate("\n")
