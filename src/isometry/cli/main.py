"""The `isometry` command: one verb per file in this folder, each thin."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

import click
import typer
from typer.core import TyperGroup

from isometry.errors import IsometryError

# verb -> (module in this folder, one line of help); a verb's module is imported only when it is called.
VERBS = {
    "demo": "Index the bundled papers and open the search page.",
    "index": "Read records from a file, folder or stdin into a collection.",
    "search": "Search a collection.",
    "info": "Say what a collection holds.",
    "verify": "Check every stored byte of a collection.",
    "compact": "Rewrite a collection without deleted records.",
    "export": "Write records and vectors to a Parquet file.",
    "serve": "Serve collections over HTTP with a search page.",
    "eval": "Measure retrieval quality with confidence intervals.",
    "recipes": "List the recipes, one per paper.",
    "prove": "Run a recipe and write its evidence.",
    "graph": "Embed the nodes of a graph.",
}
GROUPS = {"graph", "scene"}


class _Verbs(TyperGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> Any:
        if name not in VERBS:
            return None
        module = importlib.import_module(f"isometry.cli.{name}_command")
        if name in GROUPS:
            return typer.main.get_group(module.app)
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(name=name, help=module.command.__doc__)(module.command)
        return typer.main.get_command(app)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


app = typer.Typer(cls=_Verbs, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from isometry import __version__

        print(__version__)
        raise typer.Exit()


@app.callback()
def _isometry(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Learn, compress, store, search and evaluate embeddings. `--debug` anywhere shows tracebacks."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 a check said no or the machine failed us, 2 wrong usage or input, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(_run(arguments, debug))


def _run(arguments: list[str], debug: bool) -> int:
    try:
        code = typer.main.get_command(app)(arguments, prog_name="isometry", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (click.exceptions.Exit, typer.Exit) as stop:
        return stop.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        _say("interrupted")
        return 130
    except click.ClickException as error:
        _say(error.format_message())
        return 2
    except IsometryError as error:
        if debug:
            traceback.print_exc()
        _say(str(error))
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, MemoryError) as error:
        if debug:
            traceback.print_exc()
        _say(f"the machine failed us: {error or 'out of memory'}")
        return 1


def _say(sentence: str) -> None:
    text = " ".join(sentence.split())
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    print(f"{red}isometry: {text}{plain}", file=sys.stderr)


if __name__ == "__main__":
    main()
