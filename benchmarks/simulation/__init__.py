"""Hardware that is not here: accelerators and clusters of them, simulated or on paper."""
