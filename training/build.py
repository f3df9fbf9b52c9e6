"""Builds the objects of a training: network, optimizer, training step and input."""

import dataclasses
import functools

import keras
import tensorflow as tf

import models
from data.pipeline import augment
from data.shards import datasets
from engine import averages, checkpoints, cluster, devices, optimizers, schedules
from engine.evaluator import Evaluator
from engine.gradients import Gradients
from engine.trainer import Trainer
from engine.updates import Update
from models import initializers
from models.tools import graphs, published
from training import finetune, frozen, parts
from training.batches import Batches
from training.recipe import Recipe, Running


@dataclasses.dataclass(frozen=True)
class Setup:
    """All objects of a training.

    Attributes:
        recipe: Settings that decide the trained weights.
        running: Settings of the run, such as folder, threads and cache.
        begun: Content of run.json if the run is resumed, else empty.
        dataset: Training and validation images.
        workers: Processes that train together, including this one.
        strategy: Distribution strategy over the replicas.
        precision: "float32" or "mixed_bfloat16".
        network: Arguments of `models.build`.
        new_layers: Names of the layers without pretrained weights.
        batches: Images of each step.
        model: The network.
        trunk_and_head: Frozen trunk and trainable head of the network if the trunk's outputs are
            cached, else None.
        optimizer: Keras optimizer, which also counts the steps.
        lookahead: Slow weights to return to every few steps, or None.
        average: Moving average of the weights, or None.
        schedule: Learning rate of each step.
        micro_batch: Images computed at a time, over all replicas; None for the whole batch.
    """

    recipe: Recipe
    running: Running
    begun: dict
    dataset: datasets.Dataset
    workers: cluster.Cluster
    strategy: tf.distribute.Strategy
    precision: str
    network: dict
    new_layers: list[str]
    batches: Batches
    model: keras.Model
    trunk_and_head: frozen.TrunkAndHead | None
    optimizer: keras.optimizers.Optimizer
    lookahead: averages.Lookahead | None
    average: averages.Average | None
    schedule: schedules.Schedule
    micro_batch: int | None

    @property
    def replicas(self) -> int:
        """Number of replicas."""
        return self.strategy.num_replicas_in_sync

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer updates per epoch."""
        return self.batches.steps_per_epoch

    @property
    def total(self) -> int:
        """Optimizer updates of all epochs."""
        return self.recipe.epochs * self.steps_per_epoch

    @property
    def end(self) -> int:
        """The step at which the training ends."""
        return min(self.total, self.running.max_steps or self.total)

    @property
    def is_tuned(self) -> bool:
        """Whether a new classifier is trained on top of pretrained layers."""
        heads = {layer.name for layer in graphs.classifiers(self.model)}
        return bool(self.recipe.init_from) and heads <= set(self.new_layers)

    @property
    def learner(self) -> keras.Model:
        """The model to train: the network, or only its head if the features are cached."""
        return self.trunk_and_head.head if self.trunk_and_head else self.model

    @property
    def device(self) -> dict:
        """Device settings that bit-identical results depend on, as JSON values."""
        threads, deterministic = self.running.threads, self.recipe.deterministic
        return devices.describe(self.strategy, threads, self.workers.size, deterministic)

    @functools.cached_property
    def trainer(self) -> Trainer:
        """The training step."""
        recipe = self.recipe
        gradients = Gradients(
            self.strategy,
            self.learner,
            self.optimizer.iterations,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            objective=parts.objective(recipe, self.dataset),
            micro_batch=self.micro_batch,
            colour=self._colour if self.batches.policy.colour else None,
            mix=parts.mix(recipe),
            xla=devices.compiles(recipe.xla, self.strategy),
        )
        return Trainer(self.strategy, self.learner, gradients, self.update)

    @functools.cached_property
    def update(self) -> Update:
        """The update of the weights by their gradients."""
        old = finetune.factors(self.model, self.recipe.old_rate, self.new_layers)
        return Update(
            self.strategy,
            self.learner,
            self.optimizer,
            clip_norm=self.recipe.clip_norm,
            factors=self._factors(old),
            held=old,
            held_steps=round(self.recipe.head_epochs * self.steps_per_epoch),
            lookahead=self.lookahead,
            average=self.average,
            xla=devices.compiles(self.recipe.xla, self.strategy),
        )

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """Computes scores on the validation images."""
        return Evaluator(self.strategy, self.learner)

    @functools.cached_property
    def variables(self) -> dict[str, tf.Variable]:
        """All variables of a checkpoint, by name."""
        copies = (part and part.variables for part in (self.average, self.lookahead))
        return checkpoints.named_variables(self.model, self.update.optimizer, *copies)

    @functools.cached_property
    def features(self) -> frozen.Features:
        """Cached outputs of the frozen part."""
        size = self.recipe.batch_size
        return frozen.Features(
            self.trunk_and_head.trunk, self.dataset, batch_size=size, threads=self.running.threads
        )

    @functools.cached_property
    def validation(self) -> tf.data.Dataset | None:
        """Batches of validation images or features; None if there are no validation images."""
        if not self.dataset.num_examples("validation"):
            return None
        if self.trunk_and_head:
            return self.features.test_batches("validation")
        return self.batches.validation

    def train_batches(self, first: int, end: int) -> tf.data.Dataset:
        """Returns the batches of images or features for the steps in [first, end)."""
        if self.trunk_and_head:
            return self.features.train_batches(seed=self.recipe.seed, first=first, end=end)
        return self.batches.batches(first, end)

    def _colour(self, images: tf.Tensor, step: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """Applies the policy's colour augmentation to images at `places` of the global batch."""
        draws = augment.colour_draws(self.recipe.seed, step, self.recipe.batch_size)
        return self.batches.policy.colour(images, tf.gather(draws, places))

    def _factors(self, factors: dict[str, float]) -> dict[str, float]:
        """Returns all learning-rate multipliers by path, given those of the pretrained layers."""
        rate = self.recipe.norm_bias_rate
        biases = {path: rate * factors.get(path, 1.0) for path in graphs.norm_biases(self.model)}
        return factors | biases if rate != 1 else factors


def build(
    recipe: Recipe,
    running: Running,
    dataset: datasets.Dataset,
    precision: str,
    strategy: tf.distribute.Strategy,
    workers: cluster.Cluster = cluster.Cluster(),  # noqa: B008
    begun: dict | None = None,
) -> Setup:
    """Builds the training in its state at step 0; writes no files.

    Args:
        recipe: Settings completed by `parts.resolved`.
        running: Settings of the run, such as folder, threads and cache.
        dataset: Training and validation images.
        precision: One of `devices.PRECISIONS`.
        strategy: Distribution strategy over the replicas.
        workers: Processes that train together, including this one (default: this one alone).
        begun: Content of run.json if the run is resumed.

    Raises:
        ValueError: If flags, network and data are incompatible.
    """
    begun, replicas = begun or {}, strategy.num_replicas_in_sync
    precision = devices.set_precision(precision)
    network = begun.get("network") or parts.network(recipe, dataset)
    size, share = network["image_size"], (workers.index, workers.size)
    batches = Batches(recipe, running, dataset, size=size, replicas=replicas, share=share)
    rate = parts.learning_rate(recipe)
    with strategy.scope():
        model, new_layers = _network(recipe, network, batches, begun.get("new_layers"))
        trunk_and_head = _trunk_and_head(recipe, running, model, batches, replicas)
        optimizer = optimizers.build(recipe.optimizer, rate, recipe.momentum, recipe.weight_decay)
    schedule = parts.schedule(recipe, batches.steps_per_epoch)
    for side in parts.sides(recipe):
        graphs.require_size(model, side)
    setup = Setup(
        recipe=recipe,
        running=running,
        begun=begun,
        dataset=dataset,
        workers=workers,
        strategy=strategy,
        precision=precision,
        network=network,
        new_layers=new_layers,
        batches=batches,
        model=model,
        trunk_and_head=trunk_and_head,
        optimizer=optimizer,
        lookahead=_lookahead(recipe, strategy, model, schedule.total_steps),
        average=averages.Average(strategy, model, recipe.ema) if recipe.ema else None,
        schedule=schedule,
        micro_batch=begun.get("micro_batch") or parts.micro_batch(recipe),
    )
    setup.trainer  # noqa: B018 - rejects a batch that does not divide
    return setup


def _network(
    recipe: Recipe, network: dict, batches: Batches, new_layers: list[str] | None
) -> tuple[keras.Model, list[str]]:
    """Builds the network with its initial weights and freezes layers as `--freeze` says.

    Args:
        recipe: Settings that decide the trained weights.
        network: Arguments of `models.build`.
        batches: Training images, from which some layers compute statistics.
        new_layers: Names of the layers without pretrained weights if the run is resumed; None to
            load the pretrained weights now.

    Returns:
        The network and the names of its layers without pretrained weights.

    Raises:
        ValueError: If all layers are frozen.
    """
    keras.utils.set_random_seed(recipe.seed)
    model = models.build(**network, aux_heads=True)
    if recipe.init:
        initializers.initialise(model, recipe.init, recipe.seed)
    if new_layers is None:
        new_layers = take_weights(recipe, model, batches)
    finetune.freeze(model, recipe.freeze, new_layers)
    if not model.trainable_variables:
        raise ValueError(f"--freeze={recipe.freeze} leaves nothing to learn: no layer is new")
    return model, new_layers


def take_weights(recipe: Recipe, model: keras.Model, batches: Batches) -> list[str]:
    """Loads the weights of `--init_from`; returns the names of the layers without any.

    Raises:
        ValueError: If the weights are of another network.
    """
    source = recipe.init_from
    if parts.is_ours(source):
        return finetune.take_over(model, parts.origin(recipe), batches.dataset.class_names)
    if source:
        return published.find(recipe.model, source).load(model)
    for layer in model.layers:
        if hasattr(layer, "measure"):
            before = keras.Model(model.input, layer.input)
            layer.measure(before(images).numpy() for images in batches.centres())
    return [layer.name for layer in model.layers]


def _lookahead(
    recipe: Recipe, strategy: tf.distribute.Strategy, model: keras.Model, total_steps: int
) -> averages.Lookahead | None:
    if not recipe.lookahead:
        return None
    return averages.Lookahead(strategy, model, recipe.lookahead, total_steps)


def source_digest(recipe: Recipe) -> str | None:
    """Returns the sha256 of the checkpoint that `--init_from` names; None for other sources."""
    return parts.origin(recipe).about["sha256"] if parts.is_ours(recipe.init_from) else None


def settle(setup: Setup) -> Setup:
    """If `--micro_batch` is auto, halves the micro batch until a step fits in memory.

    Raises:
        ValueError: If a step does not fit and the micro batch cannot be halved further.
    """
    if setup.recipe.micro_batch != "auto" or setup.micro_batch:
        return setup
    setup = dataclasses.replace(setup, micro_batch=setup.recipe.batch_size)
    while not setup.trainer.fits():
        if setup.micro_batch % 2:
            raise ValueError(
                f"the device has too little memory for {setup.micro_batch} images at a time"
            )
        setup = dataclasses.replace(setup, micro_batch=setup.micro_batch // 2)
    return setup


def _trunk_and_head(
    recipe: Recipe, running: Running, model: keras.Model, batches: Batches, replicas: int
) -> frozen.TrunkAndHead | None:
    """Cuts the network into frozen and trainable part if the images are the same in every epoch."""
    varies = recipe.first_image_size or parts.mix(recipe) or not batches.policy.is_fixed
    needs_images = recipe.overfit_batch or running.cache == "none" or replicas > 1
    if recipe.freeze == "none" or varies or needs_images:
        return None
    dataset = batches.dataset
    return frozen.trunk_and_head(model, sum(map(dataset.num_examples, dataset.splits)))
