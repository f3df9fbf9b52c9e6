"""A script on two logical CPU devices, each a replica: `python -m tests.replicated [X.py] ...`.

Without the name of one it is train.py.
"""

import runpy
import sys

import tensorflow as tf

if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
    script = "train.py"
    if sys.argv[1:2] and sys.argv[1].endswith(".py"):
        script = sys.argv.pop(1)
    runpy.run_path(script, run_name="__main__")
