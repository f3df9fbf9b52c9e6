"""A training on two logical CPU devices, each a replica: `python -m tests.replicated FLAGS`."""

import runpy

import tensorflow as tf

if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
    runpy.run_path("train.py", run_name="__main__")
