"""The `isometry` command: one verb per file in this folder, each thin; a verb's module is imported only when called.

A verb `x` lives in `x_command.py` as a typer application named `app`.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback

import typer

from isometry import __version__
from isometry.errors import InputError, IsometryError

VERBS = {
    "demo": "Index the bundled papers and open the search page.",
    "index": "Read records from a file, folder or stdin into a collection.",
    "search": "Search a collection.",
    "info": "Say what a collection holds.",
    "verify": "Check every stored byte of a collection.",
    "compact": "Rewrite a collection without deleted records.",
    "export": "Write records and vectors to a Parquet file.",
    "tune": "Measure search plans and recommend one for a budget.",
    "serve": "Serve collections over HTTP, with a search page.",
    "eval": "Measure retrieval quality with confidence intervals.",
    "train": "Train an embedding model and save it with its run.",
    "merge": "Merge models of one start into one.",
    "recipes": "List the recipes, one per paper.",
    "prove": "Run a recipe and write its evidence.",
    "graph": "Embed the nodes of a graph.",
    "scene": "Simulate and view scenes of 3D Gaussians.",
}
# typer carries its own copy of click in newer releases: take the exception classes from where typer has them.
_ClickError: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 a check said no or the machine failed us, 2 wrong usage or input, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that wait for each other must sleep: where another process holds a core, spinning costs ten times the work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not debug:
        # Our own lines say how far it is; bars and remarks of the libraries under us would run through them.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        if "--download" not in arguments:
            os.environ.setdefault("TQDM_DISABLE", "1")
    sys.exit(_run(arguments, debug))


def _run(arguments: list[str], debug: bool) -> int:
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return 130
    except _ClickError as error:
        _say(error.format_message())  # type: ignore[attr-defined]
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


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in {"--help", "-h", "help"}:
        _print_help()
        return 0
    if arguments[0] in {"--version", "-V"}:
        print(__version__)
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see 'isometry --help'"
        raise InputError(f"no command '{verb}'; {hint}")
    app = importlib.import_module(f"isometry.cli.{verb}_command").app
    code = typer.main.get_command(app)(rest, prog_name=f"isometry {verb}", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _print_help() -> None:
    print("Isometry learns, compresses, stores, searches and evaluates embeddings.\n")
    print("Usage: isometry VERB [OPTIONS]      isometry VERB --help says more\n")
    for verb, text in VERBS.items():
        print(f"  {verb:<10} {text}")
    print("\n--debug anywhere shows tracebacks; --version prints the version.")


def _say(sentence: str) -> None:
    text = " ".join(sentence.split())
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    print(f"{red}isometry: {text}{plain}", file=sys.stderr)


if __name__ == "__main__":
    main()
