"""Tools for built networks: costs, drawings, and weights from Keras Applications."""
