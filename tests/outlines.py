"""Networks whose variables have shapes but no values: cheap to build, however large."""

import csv
from pathlib import Path

import keras

import models

with (Path(__file__).parent / "networks.csv").open() as file:
    NETWORKS = {row["name"]: row for row in csv.DictReader(file)}


def outline(name, num_classes=None, **options):
    """Builds a network to be looked at, not run; by default for the classes of networks.csv."""
    with keras.StatelessScope(initialize_variables=False):
        model = models.build(name, num_classes or int(NETWORKS[name]["classes"]), **options)
    # Otherwise the next network's variables would get their values together with this one's.
    keras.backend.clear_session(free_memory=False)
    return model


def maps(model, names):
    """The shapes that some layers put out, without the batch."""
    return {name: model.get_layer(name).output.shape[1:] for name in names}
