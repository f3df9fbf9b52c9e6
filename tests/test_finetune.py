"""Trainings that start from another one's weights, and small commands around a training."""

import csv
import dataclasses
import json
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import DONE, killed_at, metrics

import models
from data.conversion import description
from data.images import decode
from data.shards import copies
from data.sources import sources
from engine import checkpoints
from models.tools import graphs
from training import find_lr, finetune, start
from training.build import settle
from training.recipe import Recipe, Running


@pytest.fixture(scope="module")
def before(command, tmp_path_factory):
    """A run of a network with BatchNorm on digits."""
    run_dir = tmp_path_factory.mktemp("before") / "run"
    words = ["--model=cifar_resnet20", "--image_size=8", "--epochs=1", "--ema=0.9"]
    done = command("train.py", f"--run_dir={run_dir}", *words)
    assert done.returncode == 0, done.stderr
    return run_dir


def weights(run_dir):
    return checkpoints.read(run_dir / "checkpoints" / "best.safetensors")


def tuned(command, before, run_dir, data, *words):
    done = command(
        "train.py",
        f"--data={data}",
        "--model=cifar_resnet20",
        "--image_size=8",
        f"--init_from={before}",
        "--augment=none",
        "--batch_size=8",
        "--epochs=2",
        "--learning_rate=0.01",
        f"--run_dir={run_dir}",
        *words,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_other_classes_get_a_new_head_and_the_rest_is_kept(command, before, photographs, tmp_path):
    said = tuned(command, before, tmp_path / "run", photographs, "--freeze=all")
    assert f"weights from {before}; new: fc; " in said
    old, new = weights(before), weights(tmp_path / "run")
    kept = checkpoints.weights_in_use(old)  # the average
    for name, tensor in checkpoints.weights_in_use(new).items():
        if name.startswith("fc/"):
            assert tensor.shape != kept[name].shape
        else:  # statistics of BatchNorm too
            np.testing.assert_array_equal(tensor, kept[name], err_msg=name)
    assert new.about["network"]["mean"] == old.about["network"]["mean"]


@pytest.fixture(scope="module")
def frozen(command, before, photographs, tmp_path_factory):
    """A run with frozen stages, whose source has gone; what it said; the source's place."""
    folder = tmp_path_factory.mktemp("frozen")
    source = shutil.copytree(before, folder / "source")
    words = ["--freeze=stage:2", "--old_rate=0.5", "--checkpoint_steps=3", "--keep=9"]
    said = tuned(command, source, folder / "run", photographs, *words)
    shutil.rmtree(source)
    return folder / "run", said, source


def test_a_stage_is_frozen_and_the_source_is_not_needed_again(frozen, before, tmp_path, finished):
    whole, said, _ = frozen
    stopped = killed_at(3, whole, tmp_path / "stopped")
    assert finished(stopped, "--resume") == DONE.search(said).groups()
    kept = checkpoints.weights_in_use(weights(before))
    for name, tensor in checkpoints.weights_in_use(weights(whole)).items():
        is_frozen = name.startswith(("stem", "stage1", "stage2"))
        if tensor.shape == kept[name].shape and not name.startswith("fc/"):
            assert (tensor == kept[name]).all() == is_frozen, name


TUNED = {  # 42 images of other classes
    "epochs": 30,
    "batch_size": 32,
    "schedule": "cosine",
    "old_rate": 0.1,
    "learning_rate": 0.003,
    "augment": "cifar",
    "head_epochs": 3.0,
}
ANY = {  # of cifar_resnet20 on the digits, with --epochs=1
    "epochs": 1,
    "batch_size": 128,
    "schedule": "step",
    "old_rate": 1.0,
    "learning_rate": 0.1,
    "augment": "digits",
    "head_epochs": 0.0,
}


def kept(run_dir):
    """The flags of a run that fine-tuning has defaults for."""
    told = json.loads((run_dir / "run.json").read_text())["flags"]
    return {name: told[name] for name in TUNED}


@pytest.fixture
def one_step(command, tmp_path):
    """Takes a step of a training with these flags; returns what it said and its flags."""

    def train(*words):
        words = ["--model=cifar_resnet20", "--image_size=8", "--max_steps=1", *words]
        done = command("train.py", f"--run_dir={tmp_path}/run", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout, kept(tmp_path / "run")

    return train


def test_other_classes_have_defaults_of_their_own_and_say_so_in_one_line(
    before, photographs, one_step
):
    said, found = one_step(f"--data={photographs}", f"--init_from={before}", "--old_rate=0.5")
    assert found == TUNED | {"old_rate": 0.5}
    assert (
        "fine-tuning to other classes: --epochs=30 --batch_size=32 --schedule=cosine "
        "--learning_rate=0.003 --augment=cifar --head_epochs=3.0\n"
    ) in said
    assert "augment: cifar (of cifar_resnet20)" in said


def test_the_same_classes_keep_the_defaults_of_any_training(before, one_step):
    said, found = one_step(f"--init_from={before}", "--epochs=1")
    assert "fine-tuning" not in said
    assert found == kept(before) == ANY  # which started from nothing


def tuning(given=(), **flags):
    """The defaults of fine-tuning for a recipe with these flags."""
    names = ["a", "b"]
    dataset = SimpleNamespace(class_names=names, small_grey=False, num_examples=lambda _: 9)
    recipe = Recipe(data="x", init_from="keras", **{"model": "cifar_resnet20", **flags})
    return finetune.defaults(recipe, dataset, given)


def test_flags_that_are_given_win_over_those_of_fine_tuning():
    assert not tuning(given=TUNED)
    found = tuning(given=("epochs", "old_rate", "run_dir"), epochs=20, old_rate=1.0)
    assert found.keys() == TUNED.keys() - {"epochs", "old_rate"}
    assert found["head_epochs"] == 2


def test_defaults_of_fine_tuning_follow_network_data_and_other_flags():
    found = tuning(model="resnet50", optimizer="adam")
    assert found["augment"] == "alexnet"  # lighter than that of training from scratch
    assert found["learning_rate"] == pytest.approx(3e-4) and found["batch_size"] == 9
    assert tuning(given=["micro_batch"]).keys() == TUNED.keys() - {"batch_size"}
    assert tuning(freeze="all").keys() == TUNED.keys() - {"old_rate", "head_epochs"}


def test_the_head_learns_first_and_a_kill_then_changes_nothing(
    command, before, photographs, tmp_path, finished
):
    whole = tmp_path / "whole"
    words = ["--head_epochs=1", "--checkpoint_steps=1", "--keep=99"]
    said = tuned(command, before, whole, photographs, *words)  # 10 steps, half of them for the head
    stopped = killed_at(3, whole, tmp_path / "stopped")
    assert finished(stopped, "--resume") == DONE.search(said).groups()
    old = checkpoints.weights_in_use(weights(before))
    kernels = [name for name in old if name.endswith("/kernel")]
    for step in (5, 6):
        found = checkpoints.read(whole / "checkpoints" / f"step-{step:08d}.safetensors").tensors
        for name in kernels:
            if not name.startswith("fc/"):
                assert (old[name] == found[f"model/{name}"]).all() == (step == 5), name


def test_a_source_that_has_changed_is_noticed(frozen, command, before, tmp_path):
    whole, _, source = frozen
    run_dir = shutil.copytree(whole, tmp_path / "run")
    for path in (run_dir / "checkpoints").iterdir():
        path.unlink()  # as if it had been killed before the first
    shutil.copytree(before, source)
    changed = weights(before)
    tensors = {name: np.asarray(tensor + 1) for name, tensor in changed.tensors.items()}
    checkpoints.write(source / "checkpoints" / "best.safetensors", tensors, changed.about)
    done = command("train.py", "--resume", f"--run_dir={run_dir}")
    assert done.returncode == 2 and "has changed since this run was started" in done.stderr


@pytest.mark.parametrize(
    "word, complaint",
    [
        ("--model=lenet5", "is cifar_resnet20, expected lenet5"),
        ("--freeze=all", "leaves nothing to learn"),
        ("--preprocessing=mean", "does not go with --init_from"),
        ("--freeze=stage:9", "expects none, all or stage:N with N from 1 to 3"),
        ("--freeze=head", "expects none, all or stage:N"),
    ],
)
def test_what_does_not_go_together_is_refused(word, complaint, command, before, tmp_path):
    words = ["--model=cifar_resnet20", "--image_size=8", f"--init_from={before}", word]
    done = command("train.py", f"--run_dir={tmp_path}/run", *words)
    assert done.returncode == 2 and complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--micro_batch=many"], "--micro_batch expects a number of images or auto, received many"),
        (["--micro_batch=3", "--devices=2"], "--micro_batch expects a multiple of 2, received 3"),
        (["--micro_batch=256"], "expects a divisor of 128 and a multiple of 1, received 256"),
        (["--devices=x"], "--devices expects all, a number"),
    ],
)
def test_wrong_whatever_the_data_are_is_found_before_them(words, complaint, command):
    done = command("train.py", "--data=/nowhere/at/all", "--model=lenet5", *words)
    assert done.returncode == 2 and complaint in done.stderr  # not the folder


def unconverted(photographs, tmp_path):
    """Other images than those that other tests convert, as many of each class."""
    folder = shutil.copytree(photographs, tmp_path / "images")
    (folder / "class_0" / "0.jpg").rename(folder / "class_0" / f"{tmp_path.name}.jpg")
    return folder


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--micro_batch=32"], "--micro_batch expects a divisor of 42 and a multiple of 1"),
        (["--devices=4"], "--batch_size expects a multiple of 4, received 42"),
        (["--batch_size=43"], "--batch_size=43 is more than the 42 training images"),
    ],
)
def test_wrong_for_so_many_images_is_found_before_they_are_converted(
    words, complaint, command, photographs, tmp_path
):
    folder = shutil.copytree(photographs, tmp_path / tmp_path.name)  # not converted yet
    done = command("train.py", f"--data={folder}", "--model=lenet5", *words)
    assert done.returncode == 2 and complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "converting" not in done.stdout


def test_a_run_that_goes_on_converts_nothing_for_a_wrong_number_of_devices(
    photographs, tmp_path, capsys
):
    folder = unconverted(photographs, tmp_path)
    expected = description.fingerprint(sources.open_source(folder), decode.storage_for(32))
    recipe = Recipe(data=str(folder), model="lenet5", image_size=32, batch_size=42)
    with pytest.raises(ValueError, match="--batch_size expects a multiple of 4, received 42"):
        start.open_data(recipe, Running(), 4, copies.Expected(expected))
    assert capsys.readouterr().out == ""


def test_nothing_to_start_from(command, tmp_path):
    for word, complaint in (
        ("--init_from=/nowhere", "received /nowhere"),
        ("--freeze=all", "add --init_from"),
        ("--old_rate=0.1", "add --init_from"),
        ("--head_epochs=1", "add --init_from"),
        ("--scale=abc", "--scale expects 2 numbers"),
        ("--scale=20,10", "--scale expects two sides"),
        ("--micro_batch=5", "--micro_batch expects"),
    ):
        words = ["--data=/nowhere/at/all", "--model=lenet5", "--batch_size=8", word]
        done = command("train.py", f"--run_dir={tmp_path}/run", *words)
        assert done.returncode == 2 and complaint in done.stderr, done.stderr


@pytest.mark.parametrize(
    "name, expected",
    [
        ("resnet50", ["stage1_block3_relu", "stage4_block3_relu"]),
        ("alexnet", ["norm1", "relu5"]),
        ("googlenet", ["conv1_relu", "inception_5b_concat"]),
    ],
)
def test_stages_end_where_maps_get_smaller_or_names_say_so(name, expected):
    model = models.build(name, 10)
    ends = [model.layers[place].name for place in graphs.stage_ends(model)]
    assert len(ends) >= 3 and [ends[0], ends[-1]] == expected


def test_classifiers_of_all_heads_are_found():
    model = models.build("googlenet", 10, aux_heads=True)
    assert len({layer.name for layer in graphs.classifiers(model)}) == 3
    found = graphs.classifiers(models.build("nin", 10))  # ends with an average
    assert [layer.name for layer in found] == ["classes"]


def test_factors_spare_new_layers():
    model = models.build("lenet5", 10)
    found = finetune.factors(model, 0.1, {"fc7"})
    names = {variable.path.split("/")[0] for variable in model.trainable_variables}
    assert {path.split("/")[0] for path in found} == names - {"fc7"}


def test_a_learning_rate_that_fits_the_flags_is_proposed_and_nothing_trained(command, tmp_path):
    words = ["train.py", "--batch_size=128", f"--run_dir={tmp_path}/x", "--find_lr"]
    plain, scaled = (
        float(command(*words, *more).stdout.split("--learning_rate=")[1].split()[0])
        for more in ([], ["--base_batch=64"])
    )
    assert scaled == pytest.approx(plain / 2, rel=0.1)
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [
        "find_lr.csv",
        "find_lr.png",
    ]
    with open(tmp_path / "x" / "find_lr.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rates = [float(row["learning_rate"]) for row in rows]
    assert min(abs(rate - plain) / rate for rate in rates) < 0.05
    assert 0.005 < plain < 1
    done = command("train.py", "--resume", f"--run_dir={tmp_path}/x", "--find_lr")
    assert done.returncode == 2


def test_the_proposal_is_where_the_smoothed_loss_falls_fastest():
    random = np.random.default_rng(0)
    for _ in range(20):  # batches differ: half of the fall of a step at its steepest
        curve = find_lr.Curve()
        for number, rate in enumerate(np.geomspace(1e-6, 10, 100)):
            loss = 2.3 - 2 / (1 + np.exp((50 - number) / 4)) + (number > 80) * (number - 80)
            curve.add(rate, loss + random.normal(0, 0.1))
        assert curve.rates[46] < curve.proposed < curve.rates[64]
    for losses in (np.linspace(2, 20, 40), [2.3] * 5, [], [float("nan")] * 3):
        flat = find_lr.Curve()
        for number, loss in enumerate(losses):
            flat.add(number + 1, loss)
        with pytest.raises(RuntimeError, match="does not fall"):
            print(flat.proposed)


@pytest.mark.parametrize("failures, expected", [(0, 64), (2, 16)])
def test_too_little_memory_halves_what_is_computed_at_a_time(failures, expected):
    tried = []

    @dataclasses.dataclass(frozen=True)
    class Fake:
        recipe: Recipe = Recipe(batch_size=64, micro_batch="auto")
        micro_batch: int | None = None

        @property
        def trainer(self):
            fits = lambda: tried.append(self.micro_batch) or len(tried) > failures  # noqa: E731
            return SimpleNamespace(fits=fits)

    assert settle(Fake()).micro_batch == expected == tried[-1]


@pytest.fixture(scope="module")
def begun(command, tmp_path_factory):
    """A run of one step that has settled its micro-batches and computed a mean image."""
    run_dir = tmp_path_factory.mktemp("begun") / "run"
    words = ["--micro_batch=auto", "--preprocessing=mean_image", "--max_steps=1"]
    done = command("train.py", f"--run_dir={run_dir}", *words)
    assert done.returncode == 0, done.stderr
    return run_dir


def test_automatic_micro_batches_are_settled_in_the_run(begun, command):
    told = json.loads((begun / "run.json").read_text())
    assert told["flags"]["micro_batch"] == "auto" and told["micro_batch"] == 128
    again = command("train.py", "--resume", f"--run_dir={begun}", "--micro_batch=auto")
    assert again.returncode == 0, again.stderr


def test_the_mean_image_is_that_of_the_training_images(begun):
    found = weights(begun).tensors["model/normalize/mean"]
    about = weights(begun).about
    assert found.shape == (about["network"]["image_size"],) * 2 + (3,)
    np.testing.assert_allclose(found.mean(axis=(0, 1)), about["network"]["mean"], atol=3)
    assert np.ptp(found) > 100  # digits are bright in the middle


def test_a_run_of_an_older_version_goes_on_and_takes_no_new_flags(command, tmp_path, finished):
    whole = finished(tmp_path / "whole", "--epochs=1", "--checkpoint_steps=3", "--keep=9")
    run_dir = killed_at(3, tmp_path / "whole", tmp_path / "run")
    path = run_dir / "run.json"
    begun = json.loads(path.read_text())
    for name in ("network", "new_layers", "started_from", "micro_batch", "cost"):
        del begun[name]
    for name in ("mixup", "ema", "early_stopping", "preprocessing"):
        del begun["flags"][name]
    path.write_text(json.dumps(begun))
    done = command("train.py", "--resume", f"--run_dir={run_dir}", "--mixup=0.5")
    assert done.returncode == 2 and "--mixup=0.5 would change" in done.stderr
    assert finished(run_dir, "--resume", "--max_steps=1000") == whole


@pytest.mark.parametrize(
    "about",
    [{}, {"network": [1]}, {"network": {"name": "cifar_resnet20", "aux_heads": True}}],
)
def test_a_strangers_file_is_one_error_line(about, command, before, tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoints.write(path, weights(before).tensors, about)
    words = ["--model=cifar_resnet20", f"--init_from={path}", f"--run_dir={tmp_path}/run"]
    done = command("train.py", *words)
    assert done.returncode == 2 and "describes no network" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_average_is_what_is_tested(command, before):
    best = max(float(row["validation_top1_accuracy"]) for row in metrics(before))
    done = command("test.py", before)
    assert f"top-1 {100 * best:.2f} %" in done.stdout
    keras.utils.clear_session()
