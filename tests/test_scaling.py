import dataclasses
import json

import numpy as np
import pytest

import models
from benchmarks import needs, scaling
from benchmarks.simulation import assumptions, cluster
from benchmarks.simulation.cluster import Cluster, Load, Sums

MACHINES = Cluster(
    machine_gpus=8,
    machine_cores=64,
    machine_link=100e9,
    network_link=10e9,
    latency=1e-5,
    storage=2e9,
    shared_storage=np.inf,
    gpu_batch=100,
    overlap=0.0,
)
# A GPU computes a step in 0.1 s.
LOAD = Load(
    gpu_images=1000.0,
    gradients=Sums(800_000_000, 2),
    norms=Sums(0, 0),
    image_bytes=50_000.0,
    core_images=500.0,
)
QUICK = ("--models=lenet5", "--batch_size=4", "--seconds=0", "--input_seconds=0.1", "--threads=1")


def test_sums_go_round_a_ring_in_a_machine_and_between_machines():
    sums = Sums(800_000_000, 3)
    assert cluster.all_reduce(sums, 1, MACHINES) == (0, 0)
    # 7/8 of 800 MB go over each link twice: 1.4 GB.
    assert cluster.all_reduce(sums, 8, MACHINES) == pytest.approx((0.014 + 3e-5, 0))
    assert cluster.all_reduce(sums, 2, MACHINES) == pytest.approx((0.008 + 3e-5, 0))
    assert cluster.all_reduce(sums, 64, MACHINES) == pytest.approx((0.014 + 3e-5, 0.14 + 3e-5))
    alone = dataclasses.replace(MACHINES, machine_gpus=1)
    assert cluster.all_reduce(sums, 8, alone) == pytest.approx((0, 0.14 + 3e-5))


def test_machines_are_alike():
    assert [MACHINES.machines(gpus) for gpus in (1, 8, 16, 64)] == [1, 1, 2, 8]
    with pytest.raises(ValueError, match="received 12"):
        MACHINES.machines(12)


def test_gradients_hide_behind_the_backward_pass_but_statistics_do_not():
    load = dataclasses.replace(LOAD, norms=Sums(0, 100))
    assert sum(cluster.waits(load, 8, MACHINES)) == pytest.approx(0.014 + 2e-5 + 1e-3)
    for overlap, left in ((0.15, 0.014 + 2e-5 - 0.01), (1.0, 0.0)):
        machines = dataclasses.replace(MACHINES, overlap=overlap)
        assert sum(cluster.waits(load, 8, machines)) == pytest.approx(left + 1e-3)


def test_expectation_by_hand():
    one = cluster.expected(LOAD, 1, MACHINES)
    assert one == (1000, 1, (0, 0), 1000, 50e6, 2, cluster.COMPUTE)
    eight = cluster.expected(LOAD, 8, MACHINES)
    assert eight.images == eight.demand == pytest.approx(800 / 0.11402)
    assert eight.efficiency == pytest.approx(0.1 / 0.11402)
    assert eight.storage == pytest.approx(50_000 * eight.images)
    assert eight.cores == pytest.approx(eight.images / 500)
    many = cluster.expected(LOAD, 64, MACHINES)
    assert many.images == pytest.approx(6400 / (0.11402 + 0.14002))
    assert many.cores == pytest.approx(many.images / 8 / 500)


# By what limits: GPUs, and changes of the machines that make it so.
LIMITS = {
    cluster.COMPUTE: (8, {}),
    cluster.INSIDE: (8, {"machine_link": 1e9}),
    cluster.BETWEEN: (64, {}),
    cluster.DECODING: (8, {"machine_cores": 2}),
    cluster.STORAGE: (8, {"storage": 1e8}),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_what_saturates_first_is_named(limit):
    gpus, changes = LIMITS[limit]
    machines = dataclasses.replace(MACHINES, **changes)
    assert cluster.expected(LOAD, gpus, machines).limits == limit


def test_sums_of_both_kinds_together_outweigh_computing():
    machines = dataclasses.replace(MACHINES, network_link=20e9, machine_link=18e9)
    waiting = cluster.waits(LOAD, 64, machines)
    assert waiting.between < waiting.inside < 0.1 < sum(waiting)
    assert cluster.expected(LOAD, 64, machines).limits == cluster.INSIDE


def test_input_is_as_slow_as_its_slowest_part():
    slow = dataclasses.replace(MACHINES, machine_cores=2)
    found = cluster.expected(LOAD, 16, slow)
    assert found.images == 2 * 2 * 500 and found.efficiency == 2000 / 16_000
    assert found.demand > 4 * found.images
    shared = dataclasses.replace(slow, shared_storage=5e7)
    found = cluster.expected(LOAD, 16, shared)
    assert found.images == 1000 and found.limits == cluster.STORAGE
    own = dataclasses.replace(slow, storage=2.5e7)
    assert cluster.expected(LOAD, 16, own).images == 1000


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("gpus", [1, 8, 64])
def test_simulation_without_jitter_is_the_closed_form(limit, gpus):
    machines = dataclasses.replace(MACHINES, **LIMITS[limit][1])
    found = cluster.simulated(LOAD, gpus, machines, jitter=0)
    assert found == pytest.approx(cluster.expected(LOAD, gpus, machines).images, rel=1e-9)


def test_steps_wait_for_the_slowest():
    """Of n normal deviates the largest is, on average, by so many deviations above the mean."""
    jitter, fast = 0.05, dataclasses.replace(MACHINES, storage=np.inf, machine_cores=10**6)
    for gpus, deviations in ((1, 0.0), (2, 0.5642), (8, 1.4236)):
        step = 0.1 * (1 + deviations * jitter) + sum(cluster.waits(LOAD, gpus, fast))
        found = cluster.simulated(LOAD, gpus, fast, jitter=jitter, steps=4000)
        assert found == pytest.approx(100 * gpus / step, rel=5e-3)


def test_input_that_is_only_just_fast_enough_is_late_at_times():
    enough = dataclasses.replace(MACHINES, machine_cores=2)
    found = cluster.simulated(LOAD, 1, enough, jitter=0.2, steps=4000)
    assert 800 < found < 970
    ample = dataclasses.replace(MACHINES, machine_cores=20)
    assert cluster.simulated(LOAD, 1, ample, jitter=0.2, steps=4000) > 985
    assert found == cluster.simulated(LOAD, 1, enough, jitter=0.2, steps=4000)
    assert found != cluster.simulated(LOAD, 1, enough, jitter=0.2, steps=4000, seed=1)


def test_bytes_that_a_step_sums():
    lenet = models.build("lenet5", 10)
    assert needs.gradient_sums(lenet) == (4 * 62_006, 1)  # as published
    assert needs.norm_sums(lenet) == (0, 0)
    resnet = models.build("cifar_resnet20", 10)
    channels = 7 * 16 + 6 * 32 + 6 * 64  # the stem, and two of each of the 9 blocks
    assert needs.norm_sums(resnet) == (2 * 2 * 4 * channels, 2 * 19)


@pytest.mark.slow
def test_a_step_on_two_replicas_sums_what_is_said(command):
    done = command("-m", "tests.collectives", "cifar_resnet20")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["name"] == "cifar_resnet20" and found["traced"] == found["derived"]


def test_speed_of_a_gpu_is_assumed():
    parser = scaling.arguments()
    options = parser.parse_args(["--gpu_tflops=600", "--gpu_share=0.5"])
    of = {"here": 10.0, "multiply_adds": 5_000_000_000}
    assert assumptions.gpu_images(options, **of) == pytest.approx(10_000)
    options = parser.parse_args(["--gpu_speedup=30"])
    assert assumptions.gpu_images(options, **of) == 300
    assert assumptions.cluster(parser.parse_args(["--network_link=12.5"])).network_link == 12.5e9


def test_photographs_are_stored_as_the_conversion_stores_them(tmp_path):
    dataset = needs.photographs(tmp_path, 299)
    assert dataset.storage["short_side"] == 342
    assert dataset.num_examples("train") == 2 * needs.COPIES
    small = needs.photographs(tmp_path, 224).shards("train")[0]
    assert 20_000 < small.bytes / small.examples < 60_000
    assert dataset.shards("train")[0].bytes > 1.3 * small.bytes


def rows(text):
    """Cells of the lines of Markdown tables, by the first one."""
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("| ")]
    found = {}
    for first, *cells in lines:
        found.setdefault(first.strip(), []).append([cell.strip() for cell in cells])
    return found


def test_scaling_has_a_row_for_every_number_of_gpus(command, tmp_path):
    flags = ("--gpus=1,16", "--gpu_speedup=100", "--jitter=0", f"--output={tmp_path}", *QUICK)
    done = command("benchmarks/scaling.py", *flags)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "scaling.md").read_text()
    found = rows(written)
    measured, alone, many = found["lenet5"]
    assert measured[0] == "146,156" and measured[5:8] == ["0.58", "0.00", "1"]
    assert all(float(cell.rstrip("%").replace(",", "")) > 0 for cell in measured[:6])
    speed = float(measured[3].replace(",", ""))
    assert float(alone[5].replace(",", "")) == pytest.approx(100 * speed, rel=0.01)
    assert [alone[0], many[0]] == ["1", "16"] and alone[4] == "0.0"
    assert alone[2] == alone[3] and many[2] == many[3]  # no jitter
    assert found["--gpu_speedup"] == [["100", *assumptions.ASSUMED["gpu_speedup"][2:]]]
    assert "No GPU was measured" in written and str(tmp_path) not in written
    assert "python benchmarks/scaling.py --gpus=1,16 --gpu_speedup=100" in written
    assert "lenet5" in done.stdout and scaling.NOTES[0] in done.stdout


def test_scaling_reads_the_data_that_it_is_given(command, photographs, tmp_path):
    flags = (f"--data={photographs}", "--gpus=1", f"--output={tmp_path}", *QUICK)
    done = command("benchmarks/scaling.py", *flags)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "scaling.md").read_text()
    stored = float(rows(written)["lenet5"][0][8])
    assert 1 < stored < 10  # small photographs of 80 x 100
    assert "--data=FOLDER" in written and str(photographs) not in written


@pytest.mark.parametrize(
    "flag", ["--gpus=12", "--gpus=0", "--models=abacus", "--gpu_share=1.5", "--network_link=0"]
)
def test_scaling_refuses_what_cannot_be(flag, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        scaling.main([flag, f"--output={tmp_path}"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error:") and flag.partition("=")[0] in error
    assert not list(tmp_path.iterdir())
