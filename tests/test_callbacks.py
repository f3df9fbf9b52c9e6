"""A pipeline that calls Python and is still there when Python ends."""

import time

import tensorflow as tf

from data.pipeline import callbacks


def test_the_end_waits_until_a_pipeline_that_nobody_reads_from_is_quiet():
    calls = []

    def slow(number):
        time.sleep(0.15)
        calls.append(number)
        return number

    numbers = tf.data.Dataset.range(10**9).map(
        lambda number: callbacks.call(slow, [number], tf.int64), num_parallel_calls=2
    )
    iterator = iter(numbers.prefetch(3))
    assert next(iterator) == 0
    callbacks._wait_until_quiet()
    assert callbacks._calls.running == 0
    done = len(calls)
    assert done >= 4  # the one that was read, and a full buffer
    time.sleep(0.4)
    assert len(calls) == done


def test_a_call_that_fails_is_over():
    def fail(number):
        raise ValueError("no")

    numbers = tf.data.Dataset.range(1).map(lambda n: callbacks.call(fail, [n], tf.int64))
    before = callbacks._calls.running
    try:
        list(numbers)
    except tf.errors.InvalidArgumentError as error:
        assert "no" in str(error)
    assert callbacks._calls.running == before
