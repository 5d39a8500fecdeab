"""The command line: a file for each command, and one place where an expected error becomes one line.

A command imports what it needs only when it runs, so that `spfde --help` stays quick.
"""

import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from spfde import __version__
from spfde.cli import analyse, bench, claims, cost, data, kernels, methods, plan, publish, results, status, train
from spfde.errors import SpfdeError

COMMANDS: tuple[Callable[..., Any], ...] = (
    train.train,
    plan.plan,
    plan.plans,
    methods.methods,
    data.data,
    cost.cost,
    analyse.analyse,
    results.collect,
    results.table,
    results.figure,
    claims.claims,
    bench.bench,
    kernels.kernels,
    publish.overview,
    publish.show,
    publish.notebook,
    publish.crate,
    publish.publish,
    status.status,
)

# Packages of the extra `workflow`, which `pip install spfde` alone does not bring.
OF_WORKFLOW = ("grimp", "ipykernel", "jupyter_client", "nbclient", "nbconvert", "nbformat", "pygments", "rocrate")

app = typer.Typer(name="spfde", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
for command in COMMANDS:
    app.command()(command)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spfde {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def spfde(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Version.")] = False,
) -> None:
    """Sparse training with layer freezing and data sieving: train, plan its cost, collect and show the results."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """The `spfde` command. The last line of an expected error is `error: cause; remedy`; a warning is a line, too."""
    warnings.formatwarning = lambda message, *rest, **more: f"warning: {message}\n"
    try:
        code = app(prog_name="spfde", standalone_mode=False)
        sys.stdout.flush()
    except SpfdeError as error:
        code = _complain(error.cause, error.remedy, error.exit_code)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "spfde"
        message, _, hint = error.format_message().rstrip(".").partition(". ")
        code = _complain(_small(message), _small(hint) or f'"{path} --help" lists what it takes', 2)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in OF_WORKFLOW:
            raise
        code = _complain(f"the package {name} is not installed", "pip install 'spfde[workflow]' brings it", 2)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader has closed the pipe, e.g. `spfde plan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _complain(cause: str, remedy: str, code: int) -> int:
    print("error:", *f"{cause}; {remedy}".splitlines(), file=sys.stderr)
    return code


def _small(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
