"""Imports what most commands need, once for all forks of `forked`; starts nothing."""

import importlib

from runtime import console

with console.quiet_import():
    for name in (
        "inference.classifier",
        "inference.evaluation",
        "inference.export.formats",
        "inference.loading",
        "training.build",
        "training.log",
        "training.meter",
        "training.start",
    ):
        importlib.import_module(name)
