"""What a step on two replicas sums over them, traced and derived: `python -m tests.collectives`.

Names of networks follow; a line of JSON for each. A process of its own, because logical devices
must be made before TensorFlow starts.
"""

import json
import sys

import keras
import tensorflow as tf

import models
from benchmarks import needs
from engine import devices, optimizers
from engine.trainer import MAX_STEPS
from tests import trainers

CLASSES, BATCH, REPLICAS = 10, 4, 2


def traced(trainer, model):
    """Bytes and number of the sums in the graph of a step, of one replica."""
    shape = [BATCH // REPLICAS, *model.input_shape[1:]]
    batch = (tf.zeros(shape, tf.uint8), tf.zeros(shape[:1], tf.int32), tf.ones(shape[:1]))
    iterator = trainer.iterate(tf.data.Dataset.from_tensors(batch).repeat())
    rates = tf.zeros([MAX_STEPS])
    graph = trainer._train.get_concrete_function(iterator, rates, tf.constant(1)).graph
    graphs = [graph, *(graph._get_function(name).graph for name in graph._functions)]
    sums = [
        operation.inputs[0]
        for each in graphs
        for operation in each.get_operations()
        if operation.type.startswith("CollectiveReduce")
    ]
    own = [tensor for tensor in sums if tensor.device.endswith("CPU:0")]
    assert len(sums) == REPLICAS * len(own)
    return [sum(tensor.shape.num_elements() * tensor.dtype.size for tensor in own), len(own)]


def main(names):
    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = REPLICAS * [tf.config.LogicalDeviceConfiguration()]
    tf.config.set_logical_device_configuration(cpu, logical)
    strategy = devices.make_strategy()
    for name in names:
        keras.utils.clear_session()
        with strategy.scope():
            model = models.build(name, CLASSES, aux_heads=True)
            optimizer = optimizers.build("momentum", 0.01, 0.9)
        trainer = trainers.build(strategy, model, optimizer, batch_size=BATCH, seed=0)
        derived = [needs.gradient_sums(model), needs.norm_sums(model)]
        total = [sum(column) for column in zip(*derived, strict=True)]
        print(json.dumps({"name": name, "traced": traced(trainer, model), "derived": total}))


if __name__ == "__main__":
    main(sys.argv[1:])
