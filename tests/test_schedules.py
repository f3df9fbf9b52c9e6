import math

import pytest

from engine.schedules import SCHEDULES, Plateau, Schedule


def test_constant():
    assert {Schedule("constant", 0.1, 100).rate(step) for step in range(100)} == {0.1}


def test_step_decays_at_fractions_of_the_training():
    schedule = Schedule("step", 1.0, 100, milestones=(0.5, 0.75), decay=0.1)
    assert [schedule.rate(step) for step in (0, 49, 50, 74, 75, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_cosine_falls_from_the_base_to_almost_nothing():
    schedule = Schedule("cosine", 2.0, 100)
    assert schedule.rate(0) == 2.0
    assert schedule.rate(50) == pytest.approx(1.0)
    assert schedule.rate(99) == pytest.approx(1 + math.cos(math.pi * 0.99))


def test_exponential_decays_once_in_so_many_steps():
    schedule = Schedule("exponential", 1.0, 1000, decay=0.94, decay_steps=20, warmup_steps=10)
    assert [schedule.rate(step) for step in (10, 20, 30, 110)] == pytest.approx(
        [1, 0.94**0.5, 0.94, 0.94**5]
    )


def test_polynomial():
    schedule = Schedule("polynomial", 2.0, 100, power=2.0)
    assert [schedule.rate(step) for step in (0, 50, 99)] == pytest.approx([2, 0.5, 2e-4])


def test_one_cycle_rises_and_falls():
    rates = [Schedule("one_cycle", 1.0, 100).rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25) and rates[15] == pytest.approx((1 + 1 / 25) / 2)
    assert rates[30] == 1.0 == max(rates) and rates[65] == pytest.approx(0.5, abs=1e-4)
    assert rates[99] < 0.01 and rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)


def test_triangle_rises_and_falls_linearly():
    schedule = Schedule("triangle", 2.0, 1000)
    rates = [schedule.rate(step) for step in (0, 115, 230, 615, 1000)]
    assert rates == pytest.approx([0.4, 1.2, 2.0, 1.07, 0.14])


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_rises_linearly_to_the_base(name):
    schedule = Schedule(name, 0.4, 100, warmup_steps=4)
    assert [schedule.rate(step) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_plateau_divides_after_epochs_without_improvement():
    schedule = Schedule("plateau", 1.0, 100, plateau=Plateau(patience=2))
    rates = []
    for error in (0.9, 0.8, 0.8, 0.85, 0.7, 0.7, 0.7, 0.7, 0.7):
        schedule.plateau.observe(error)
        rates.append(schedule.rate(0))
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001])


def test_state_survives_a_restart():
    schedule = Schedule("plateau", 1.0, 100, plateau=Plateau(patience=2))
    for error in (0.5, 0.6, 0.6, 0.6):
        schedule.plateau.observe(error)
    other = Schedule("plateau", 1.0, 100)
    other.state = schedule.state
    for each in (schedule, other):
        each.plateau.observe(0.6)
    assert other.rate(7) == schedule.rate(7) == pytest.approx(0.01)
