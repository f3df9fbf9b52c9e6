"""Trainers for tests, with all options in one call."""

from engine.gradients import Gradients
from engine.trainer import Trainer
from engine.updates import Update


def build(
    strategy,
    model,
    optimizer,
    *,
    batch_size,
    seed=0,
    xla=False,
    clip_norm=None,
    factors=None,
    held=(),
    held_steps=0,
    average=None,
    lookahead=None,
    **of_gradients,
):
    options = {"clip_norm": clip_norm, "factors": factors, "average": average}
    options |= {"lookahead": lookahead, "held": held, "held_steps": held_steps}
    update = Update(strategy, model, optimizer, **options, xla=xla)
    step, common = optimizer.iterations, {"batch_size": batch_size, "seed": seed, "xla": xla}
    gradients = Gradients(strategy, model, step, **common, **of_gradients)
    return Trainer(strategy, model, gradients, update)
