"""The command line: ``deepshap explain``, ``check``, ``report``, ``demo`` and ``completion``.

Modules that take time to import (torch, shap, pandas) are imported when a command runs, so that ``--help`` is there at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .. import __version__
from ..errors import AdditivityError, InputError, UnsupportedOperationError

EXTRAS = {"torch": "torch", "pandas": "tables", "pyarrow": "tables"}  # by packages that commands import
FAILED, MISMATCH, SOME_FAILED = 1, 3, 4  # exit codes; click's own for a wrong call is 2

INTRODUCTION = """Explain what a neural network answers: which inputs, at which time step, made it so.

\b
  deepshap check model.pt2                                 can this model be explained?
  deepshap explain model.pt2 data.parquet -o why.parquet   attributions of every input
  deepshap report why.parquet -o why.html                  a page to look at and to send
  deepshap demo                                            see all of it on real data

The attributions of a row sum to the model's output minus its mean over the background (Deep SHAP); whatever cannot be
explained exactly is an error. Exit codes: 0 done, 1 cannot be done, 2 wrong call, 3 the sums do not match, 4 some rows
could not be explained (--on-error keep).
"""

MODELS = """MODEL is one of

\b
  model.pt2               a program exported with torch.export.save
  model.keras             a saved Keras model
  package.module:factory  a class or function that returns the model; its
                          weights come with --weights
  model.pt                a pickled PyTorch module, only with --allow-pickle
"""

DATA = """DATA is a table (.parquet, .csv, .xlsx, .jsonl and others) or an array (.npy, .npz). A table is
long, a line per id and time, if you name the columns --id and --time; else it is wide, a line per row, and its columns are
the features.
"""


class Commands(click.Group):
    """Reports every error in one line."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Run, and exit with a code that says how it went."""
        options["standalone_mode"] = False
        try:
            sys.exit(super().main(args, *rest, **options) or 0)
        except click.ClickException as error:  # a wrong call
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt) as stop:
            click.echo(f"deepshap: {str(stop.__cause__ or stop) or 'stopped'}", err=True)
            sys.exit(130)
        except Exception as error:
            if "--traceback" in (args or sys.argv):
                raise
            click.echo(f"deepshap: error: {format_error(error)}", err=True)
            sys.exit(MISMATCH if isinstance(error, AdditivityError) else FAILED)


def format_error(error: Exception) -> str:
    """Return the message of an error without line breaks."""
    from ..errors import DeepShapError

    text = str(error)
    if isinstance(error, InputError):
        from .sampling import to_command_line

        text = to_command_line(text)
    if isinstance(error, UnsupportedOperationError):
        text = text.partition("\nSay what")[0] + "; docs/adding-a-rule.md says what to do"
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        text = f"there is no file {error.filename}."
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        text = f"{error.name} is missing: pip install 'deepshap[{EXTRAS[error.name]}]'"
    is_expected = isinstance(error, (DeepShapError, ImportError, OSError))
    return " ".join((text if is_expected else f"{type(error).__name__}: {text}").split())


def options(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    """Join option decorators, in the order of the help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


FILE = click.Path(path_type=Path, dir_okay=False)

model_options = options(
    click.option(
        "--weights",
        type=FILE,
        help="Weights for package.module:factory: .safetensors, or a state_dict saved with torch.save.",
    ),
    click.option("--model-options", metavar="JSON", help="""Arguments of the factory, such as '{"hidden": 64}'."""),
    click.option(
        "--allow-pickle",
        is_flag=True,
        help="Read pickled modules. This RUNS CODE that is in the file: only for files that you trust.",
    ),
    click.option("--device", metavar="DEVICE", help="Where the model runs: cpu, cuda, cuda:1.  [default: as loaded]"),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float64", "int64"]),
        help="Run model and data in this precision; int64 for token ids.",
    ),
    click.option("--tensor", metavar="KEY", help="Which tensor to explain if the model returns several: index or key."),
    click.option("--time-first", is_flag=True, help="The model takes (steps, rows, features)."),
)

data_options = options(
    click.option("--id", "id_column", metavar="COLUMN", help="Column with the ids of the rows."),
    click.option("--time", "time_column", metavar="COLUMN", help="Column with the times of a long table."),
    click.option(
        "--features", metavar="A,B,...", help="Columns to explain; names with commas in quotes.  [default: all others]"
    ),
    click.option(
        "--variable", metavar="COLUMN", help="Column with the name of the feature in each line of a long table."
    ),
    click.option("--value", metavar="COLUMN", help="Column with the value of --variable."),
    click.option(
        "--separator", metavar="MARK", help="What stands between the cells of a text file.  [default: found out]"
    ),
    click.option("--decimal", type=click.Choice([".", ","]), help="Decimal mark of a text file.  [default: found out]"),
    click.option(
        "--encoding", metavar="NAME", help="Of a text file, such as cp1252.  [default: UTF-8, or by its mark]"
    ),
    click.option(
        "--header", metavar="LINE", help="Line of a text file with the names, from 1, or 'none'.  [default: found out]"
    ),
    click.option(
        "--format", "form", type=click.Choice(["long", "wide"]), help="Of a table.  [default: long with --time]"
    ),
    click.option(
        "--array",
        "arrays",
        metavar="NAME",
        multiple=True,
        help="Array of an .npz file; repeat for a model of several inputs.",
    ),
    click.option("--shape", metavar="N,N,...", help="Shape of one row, such as 30,4 for 30 steps of 4 features."),
    click.option(
        "--lengths",
        metavar="SOURCE",
        help="Valid steps of each row, handed to the model as its last argument: 'table' (the lines of each id), a column of "
        "a wide table, an array of the .npz file, or a .npy file.",
    ),
)

sampling_options = options(
    click.option(
        "--effort",
        type=float,
        help="How much more time to take than Deep SHAP, for values nearer to the Shapley values.  [default: 1]",
    ),
    click.option(
        "--tolerance",
        type=float,
        help="Instead of --effort: continue until standard errors are below this share of each row's largest value.",
    ),
    click.option("--max-effort", type=float, help="Where --tolerance stops at the latest.  [default: 64]"),
    click.option(
        "--players",
        metavar="WHO",
        help="What values belong to: 'cells', 'steps', 'features', a number of steps, a .npy file with the number of each "
        """cell's group, or named groups of features, such as '{"weather": ["wind", "rain"]}'.  [default: cells]""",
    ),
    click.option("--no-reliability", is_flag=True, help="Do not estimate how far Deep SHAP can be trusted."),
)

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
traceback_option = click.option("--traceback", is_flag=True, help="Show where in the code an error arose.")


@click.group(cls=Commands, help=INTRODUCTION, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="deepshap")
def cli() -> None:
    """Run deepshap."""


@cli.command(
    short_help="Attribute a model's outputs to its inputs.",
    epilog="Example: deepshap explain model.pt2 patients.csv --id patient --time day --background 100 -o why.parquet",
    help=f"""Attribute the model's outputs on DATA to its inputs.

{MODELS}
{DATA}
Writes a Parquet file: a line per row, step, feature and output, with everything else in its metadata.
deepshap.load("why.parquet") reads it in Python.
""",
)
@click.argument("model", metavar="MODEL")
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=FILE, default="attributions.parquet", show_default=True, help="The Parquet file to write."
)
@click.option("--report", type=FILE, help="Write a report (.html) too.")
@click.option(
    "-b",
    "--background",
    metavar="SOURCE",
    default="100",
    show_default=True,
    help="What the rows are compared with: a file in the form of DATA, a number (that many rows of DATA, drawn at random), "
    "'zeros', or 'mean' (every feature at its mean).",
)
@click.option("--seed", default=0, show_default=True, help="Of the drawn background, and of --effort.")
@click.option("--rows", metavar="N or A:B", help="Explain only these rows, the first N or those from A to before B.")
@click.option(
    "--class", "classes", metavar="NAME", multiple=True, help="Output to explain, index or name; may be repeated."
)
@click.option("--class-names", metavar="A,B,...", help="Names of the outputs, or a file with one in each line.")
@click.option(
    "--ranked-outputs", type=click.IntRange(1), metavar="K", help="Explain the K highest outputs of each row."
)
@click.option("--vocabulary", type=FILE, help="Words by their ids, one in each line, for DATA of token ids.")
@click.option("--feature-names", metavar="A,B,...", help="Names of the features of an array, or a file of them.")
@click.option(
    "--target",
    metavar="WHAT",
    help="Explain one number of each row: 'predicted', 'true' (with --targets), 'runner-up', an output's name or index, "
    "'predicted - runner-up', 'log-odds', 'log-odds of NAME'; or 'logits', what the last softmax or sigmoid gets.",
)
@click.option(
    "--targets",
    metavar="SOURCE",
    help="True classes or values: a column, an array of the .npz file, or a .npy file; columns A,B,... for outputs with "
    "values of their own.",
)
@click.option(
    "--groups",
    metavar="SOURCE",
    help="Labels of rows, which the report compares: a column, an array of the .npz file, or a .npy file.",
)
@click.option(
    "--faithfulness",
    is_flag=True,
    help="Ask the model whether some of the explanations are true of it; a part of the report.",
)
@click.option("--raw", type=FILE, help="The data before scaling, in the form of DATA: shown in tables and reports.")
@sampling_options
@data_options
@model_options
@click.option(
    "--max-memory", metavar="SIZE", help="Memory for activations, such as '500 MB'.  [default: a quarter of the free]"
)
@click.option(
    "--shards",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Explain data larger than memory (.parquet, a folder of them, .npy) part by part into this folder. Started again, "
    "the same command resumes. The last line is JSON.",
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes, for --shards.")
@click.option("--ray", metavar="ADDRESS", help="Explain on this Ray cluster, or 'local', for --shards.")
@click.option("--rows-per-part", type=click.IntRange(1), default=1000, show_default=True, help="For --shards.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "keep"]),
    default="raise",
    show_default=True,
    help="For --shards: stop at a row that cannot be explained, or keep its id with the error and exit with 4.",
)
@quiet_option
@traceback_option
def explain(**arguments: Any) -> None:
    """Explain."""
    from .files import check_call

    parts = {name: arguments.pop(name) for name in ("workers", "ray", "rows_per_part", "on_error")}
    folder = arguments.pop("shards")
    for name in ["output"] if folder else parts:
        if click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE:
            where = "not for --shards, which writes a folder" if folder else "for --shards"
            raise click.UsageError(f"--{name.replace('_', '-')} is {where}.")
    check_call(arguments, folder)

    from .explain import run  # imports what reads tables

    if not run(folder, parts, **arguments):
        sys.exit(SOME_FAILED)


@cli.command(
    short_help="List a model's operations and how each is treated.",
    epilog="Example: deepshap check mypackage.models:Forecaster --input-shape 30,4",
    help=f"""List the operations that the model uses and how each is treated, before any data.

{MODELS}
The shapes of the inputs are known from model.pt2; for others give --input-shape or --data. Exits with 1 if an operation
has no rule.
""",
)
@click.argument("model", metavar="MODEL")
@click.option(
    "--input-shape",
    "shapes",
    metavar="N,N,...",
    multiple=True,
    help="Shape of one row, such as 30,4; repeat for a model of several inputs.",
)
@click.option("--data", type=FILE, help="Data to take the shape from.")
@data_options
@model_options
@traceback_option
def check(**arguments: Any) -> None:
    """Check a model."""
    from .files import check_device, check_model, parse_sizes

    check_device(arguments["device"])
    arguments["shapes"] = [parse_sizes(shape, "--input-shape") for shape in arguments["shapes"]]
    check_model(arguments["model"], arguments["weights"], arguments["model_options"])

    from .check import run  # imports torch

    sys.exit(0 if run(**arguments) else FAILED)


@cli.command(short_help="Make a page of what `explain` wrote.")
@click.argument("file", type=FILE)
@click.option("-o", "--output", type=FILE, help="The page to write.  [default: FILE, as .html]")
@click.option("--title", help="Heading of the page.")
@click.option(
    "--max-megabytes",
    default=64.0,  # options.MAX_MEGABYTES, which takes NumPy to import
    show_default=True,
    help="The page will not be larger.",
)
@quiet_option
@traceback_option
def report(
    file: Path, output: Path | None, title: str | None, max_megabytes: float, quiet: bool, traceback: bool
) -> None:
    """Make a page (.html) of FILE, a Parquet file from `deepshap explain`: for browsers, without network."""
    from .files import REPORT, check_can_read, check_can_write

    page = output or file.with_suffix(".html")
    check_can_write([("--output", page, REPORT)], [file])
    check_can_read([file])

    from ..dataset.explanation_dataset import load

    written = load(file).report(page, title=title, max_megabytes=max_megabytes)
    if not quiet:
        click.echo(f"the report is in {written}")


@cli.command(short_help="Say how far a run with --shards is.")
@click.argument("folder", type=click.Path(path_type=Path))
@traceback_option
def status(folder: Path, traceback: bool) -> None:
    """Say how far the run in FOLDER is, as a line of JSON; exits with 1 if parts are missing or damaged."""
    import json

    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}.")

    from ..dataset.explanation_dataset import status as read_status  # imports shap

    progress = read_status(folder)
    click.echo(json.dumps({**vars(progress), "complete": progress.is_complete}))
    sys.exit(0 if progress.is_complete else FAILED)


@cli.command(short_help="Explain an LSTM on speech recordings.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default="demo-output",
    show_default=True,
    help="Folder to write to.",
)
@click.option("--report/--no-report", default=True, help="Write report.html too.")
@traceback_option
def demo(output: Path, report: bool, traceback: bool) -> None:
    """Train an LSTM on speech recordings, explain it, and write tables, pictures and a report."""
    from ..datasets.demo import main as run_demo

    run_demo(output, report=report)


@cli.command(
    short_help="Let a shell complete commands.", epilog="Example, for bash: deepshap completion bash >> ~/.bashrc"
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets SHELL complete deepshap's commands and options."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(cli, {}, "deepshap", "_DEEPSHAP_COMPLETE").source())


def main() -> None:
    """Run the command line."""
    cli(prog_name="deepshap")
