"""Shows the networks: `python -m models [NAME ...] [--batch_size=N] [--weights] [--markdown]`.

One row per network: the paper, its published error, and the cost of the built network, for 10
classes where the images have 32 pixels, otherwise for 1000. Given names, it shows only their rows,
and below the table each network's layers with their output shapes. `NAME --plot=FILE` draws one
network instead.

With `--weights`, it shows the weights that other libraries publish for the networks, a row per
network, source and tag, the default of a source first: `--init_from=SOURCE` or `SOURCE:TAG`. The
top-1 accuracy in %, on one centre crop of `input` pixels (CIFAR networks: CIFAR-10), and the
licence are as the source states them; neither was checked here.

- paper, year: the citation, and the year of its first appearance
- error: published error of a single network on the validation images, in %; CIFAR-10+: with shifted
  and mirrored training images. In brackets: whose figure it is, if not the paper's, and whether it
  was recalled instead of looked up
- parameters: number of trainable parameters
- MB: size of all weights, trainable or not, as float32, in millions of bytes
- multiply-adds: millions of multiply-adds of convolutions and dense layers for one image
- memory: millions of bytes for one training step of N images in float32,
  4 x (weights + 2 x parameters + N x activations): gradients and one optimizer slot such as
  momentum's are as large as the parameters; activations are the outputs of all layers, of which
  a framework may keep fewer
"""

import argparse
import inspect
from collections.abc import Iterable
from typing import NamedTuple

import keras

import models
from models.sources import rows
from models.tools import graphs
from models.tools.published import SOURCES
from runtime import console

_FLOAT = 4  # bytes of a float32


class Column(NamedTuple):
    """A column of a table: text aligns left, numbers align right."""

    title: str
    width: int
    is_text: bool = False


def _columns(names: list[str], batch_size: int) -> list[Column]:
    rows = [models.VARIANTS[name] for name in names]
    texts = {
        "name": names,
        "paper": [row.paper for row in rows],
        "year": ["1998"],
        "error": [row.error for row in rows],
    }
    numbers = ("input", "parameters", "MB", "multiply-adds", f"memory, N = {batch_size}")
    return [
        *(_text_column(title, cells) for title, cells in texts.items()),
        *(Column(title, max(len(title), 11)) for title in numbers),
    ]


def _text_column(title: str, cells: Iterable[str]) -> Column:
    return Column(title, max(map(len, [title, *cells])), is_text=True)


def _row(name: str, model: keras.Model, batch_size: int) -> list[str]:
    variant = models.VARIANTS[name]
    parameters = graphs.parameters(model.trainable_weights)
    weights = graphs.parameters(model.weights)
    numbers = weights + 2 * parameters + batch_size * graphs.activations(model)
    return [
        name,
        variant.paper,
        str(variant.year or ""),
        variant.error,
        f"{variant.image_size} x {variant.image_size}",
        f"{parameters:,}",
        f"{_FLOAT * weights / 1e6:,.1f}",
        f"{graphs.multiply_adds(model) / 1e6:,.1f}",
        f"{_FLOAT * numbers / 1e6:,.0f}",
    ]


def _weights_table(names: list[str]) -> tuple[list[Column], list[list[str]]]:
    """Returns the columns and rows of the published weights of networks."""
    cells = [
        [
            *(row.network, row.source, row.tag, f"{row.top1:.2f}"),
            *(str(row.preprocessing.image_size), f"{row.megabytes:,.1f}"),
            *(row.licence or "not stated", row.said_in),
        ]
        for row in rows.ROWS
        if row.network in names
    ]
    titles = ("network", "source", "tag", "top-1", "input", "MB", "licence", "top-1 is said in")
    columns = [
        _text_column(title, column)._replace(is_text=title not in ("top-1", "input", "MB"))
        for title, column in zip(titles, zip(*cells, strict=True), strict=False)
    ]
    return columns or [_text_column(title, ()) for title in titles], cells


def _layer_columns(cells: list[list[str]]) -> list[Column]:
    texts = zip(("layer", "type", "output"), zip(*cells, strict=True), strict=False)
    numbers = Column("weights", 11), Column("multiply-adds", 14)
    return [*(_text_column(title, cells) for title, cells in texts), *numbers]


def _layer_rows(model: keras.Model) -> list[list[str]]:
    rows = []
    for layer in model.layers:
        shape = " x ".join(map(str, layer.output.shape[1:]))
        costs = graphs.parameters(layer.weights), graphs.layer_multiply_adds(layer)
        rows.append(
            [layer.name, type(layer).__name__, shape, *(f"{n:,}" if n else "" for n in costs)]
        )
    return rows


def _outline(name: str) -> keras.Model:
    """Builds a network whose weights take no memory, so that the whole table takes a minute."""
    keras.backend.clear_session()
    with keras.StatelessScope(initialize_variables=False):
        return models.build(name, 10 if models.image_size(name) == 32 else 1000)


def _print(columns: list[Column], rows: Iterable[list[str]], markdown: bool):
    """Prints each row as soon as it is computed."""
    edge, between = ("| ", " | ") if markdown else ("", "  ")

    def line(cells):
        padded = (
            f"{cell:{'<' if column.is_text else '>'}{column.width}}"
            for cell, column in zip(cells, columns, strict=True)
        )
        print((edge + between.join(padded) + edge[::-1]).rstrip(), flush=True)

    line([column.title for column in columns])
    end = ":" if markdown else "-"
    line(["-" * (each.width - 1) + ("-" if each.is_text else end) for each in columns])
    for row in rows:
        line(row)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = console.Parser(
        prog="python -m models",
        description=inspect.cleandoc(__doc__),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks to show (default: all)")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=128,
        help="images per step, N of the memory column (default: 128)",
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="draw one network into a .svg, .png or .pdf file"
    )
    parser.add_argument("--weights", action="store_true", help="show the published weights")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        parser.error(f"wrong batch_size, expected 1 or more, received {args.batch_size}")
    if args.plot and args.weights:
        parser.error("expected one of --plot and --weights, received both")
    if args.plot and len(args.names) != 1:
        parser.error(f"--plot draws one network, received {len(args.names)} names")
    return args


def main(argv: list[str] | None = None):
    """Prints the table of networks, or draws one network."""
    args = _parse(argv)
    with console.user_errors():
        names = args.names or list(models.VARIANTS)
        for name in names:
            models.image_size(name)
        if args.plot:
            from models.tools import drawing

            return drawing.draw(_outline(names[0]), args.plot)
        if args.weights and not any(rows.of(name, source) for name in names for source in SOURCES):
            raise ValueError(f"no source has weights of {', '.join(names)}")
        if args.weights:
            return _print(*_weights_table(names), args.markdown)
        costs = (_row(name, _outline(name), args.batch_size) for name in names)
        _print(_columns(names, args.batch_size), costs, args.markdown)
        for name in args.names:
            print(f"\n{name}\n")
            layers = _layer_rows(_outline(name))
            _print(_layer_columns(layers), layers, args.markdown)


if __name__ == "__main__":
    console.open_streams(exit_on_closed_pipe=True)
    main()
