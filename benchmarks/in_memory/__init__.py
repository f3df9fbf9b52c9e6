"""Training on JAX with all images in device memory, without TensorFlow: benchmarks/on_jax.py."""
