"""Models and simulations of hardware that this machine lacks: accelerators and clusters."""
