"""Averages of weights over the steps on JAX, the same as in engine/averages.py; tests compare them.

Weights are any tree of arrays. Whole numbers in it, the states of random generators, are not
averaged but copied.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp

Weights = TypeVar("Weights")  # a tree of arrays


def update(average: Weights, weights: Weights, done: jax.Array, decay: float) -> Weights:
    """Moves a moving average towards the weights, see `engine.averages.Average`.

    Args:
        average: The average so far; the weights before the first step.
        weights: The weights.
        done: Updates done, integer [].
        decay: Fraction of the average that a step keeps.

    Returns:
        The new average.
    """
    return _moved(average, weights, jnp.minimum(decay, (1 + done) / (10 + done)))


def look_ahead(
    slow: Weights, weights: Weights, done: jax.Array, period: int, total: int
) -> tuple[Weights, Weights]:
    """Returns to the slow weights if it is time, see `engine.averages.Lookahead`.

    Args:
        slow: The slow weights so far; the weights before the first step.
        weights: The weights.
        done: Updates done, integer [].
        period: Number of updates between two returns.
        total: Updates in the whole training.

    Returns:
        The new slow weights, and the weights to go on with.
    """
    is_due = done % period == 0
    slow = _moved(slow, weights, 0.95**period * (done / total) ** 3, is_due)
    returns = is_due | (done == total)
    return slow, jax.tree.map(lambda low, fast: jnp.where(returns, low, fast), slow, weights)


def _moved(
    copies: Weights, weights: Weights, keep: jax.Array, is_due: jax.Array | bool = True
) -> Weights:
    """Moves copies to the weights if it is time, except for a fraction `keep` of the way."""

    def move(copy: jax.Array, weight: jax.Array) -> jax.Array:
        if not jnp.issubdtype(weight.dtype, jnp.floating):
            return weight
        return jnp.where(is_due, weight + jnp.asarray(keep, weight.dtype) * (copy - weight), copy)

    return jax.tree.map(move, copies, weights)
