"""Which precision `auto` is, where XLA compiles, and which kernels are allowed."""

import pytest
import tensorflow as tf

from engine import devices

ONE, TWO = (type("Strategy", (), {"num_replicas_in_sync": count}) for count in (1, 2))

PLAIN = "flags\t\t: fpu avx2 avx512f avx512_bf1 "


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """Makes this machine one without a GPU, whose processor has some flags."""

    def has(text):
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(devices, "_PROCESSOR", tmp_path / "cpuinfo")
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [])

    return has


def test_processors_that_multiply_bfloat16_do(processor, monkeypatch):
    processor(PLAIN)
    assert devices.precision_here("auto") == "float32"
    processor(PLAIN + "avx512_bf16 amx")
    assert devices.precision_here("auto") == "mixed_bfloat16"
    assert devices.precision_here("float32") == "float32"
    assert devices.precision_here("auto", training=False) == "float32"
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert devices.precision_here("auto") == "float32"


def test_a_machine_that_does_not_tell_takes_float32(processor, monkeypatch, tmp_path):
    processor("")
    monkeypatch.setattr(devices, "_PROCESSOR", tmp_path / "none")
    assert devices.precision_here("auto") == "float32"


@pytest.mark.parametrize(
    "gpus, expected",
    [({"a": (8, 0), "b": (9, 0)}, "mixed_bfloat16"), ({"a": (9, 0), "b": (7, 5)}, "float32")],
)
def test_gpus_that_all_multiply_bfloat16_do(processor, monkeypatch, gpus, expected):
    processor(PLAIN + "avx512_bf16")
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: list(gpus))
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda gpu: {"compute_capability": gpus[gpu]},
    )
    assert devices.precision_here("auto") == expected


@pytest.mark.parametrize(
    "xla, gpus, strategy, expected",
    [
        ("auto", [], ONE, False),
        ("auto", ["a"], ONE, True),
        ("auto", ["a", "b"], TWO, False),
        ("on", [], ONE, True),
        ("off", ["a"], ONE, False),
    ],
)
def test_xla_compiles_on_one_gpu(monkeypatch, xla, gpus, strategy, expected):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus)
    assert devices.compiles(xla, strategy) is expected


@pytest.mark.parametrize(
    "choice, gpus, deterministic, exact",
    [
        ("auto", [], False, True),
        ("on", [], True, True),
        ("off", [], False, True),
        ("auto", ["a"], True, True),
        ("on", ["a"], True, True),
        ("off", ["a"], False, False),
    ],
)
def test_kernels_on_gpus_are_deterministic(monkeypatch, choice, gpus, deterministic, exact):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: gpus)
    assert devices.is_deterministic(choice) is deterministic
    assert devices.is_exact(choice) is exact
