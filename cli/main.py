"""The `autotp` command. Exit codes: 0 done, 1 verified and different, 2 an error, 130 interrupted."""

import difflib
import gc
import importlib.metadata
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from autotp.errors import AutoTPError

from . import clusters, compare, explain, export, measure, plan, profile, report, show, verify
from .output import Answer, is_verbose, print_answer, print_error, stdout_to_stderr, take_settings, tidy_warnings

ERROR, INTERRUPTED = 2, 130


class Program(TyperGroup):
    """Runs a command and prints its answer or its error; nothing else prints to standard output."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> Any:
        arguments = take_settings(list(sys.argv[1:] if args is None else args))
        as_json = "--json" in arguments and not {"--help", "--version"} & set(arguments)
        try:
            sys.exit(self._run(arguments, as_json, {**extra, "standalone_mode": False}))
        except BrokenPipeError:  # the reader has seen enough; keep Python from flushing into the closed pipe at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(1)

    def _run(self, arguments: list[str], as_json: bool, extra: dict[str, Any]) -> int:
        try:
            with stdout_to_stderr() if as_json else nullcontext(), tidy_warnings():
                answer = super().main(arguments, **extra)
            if isinstance(answer, Answer):
                print_answer(answer, as_json=as_json)
                return answer.exit_code
        except BrokenPipeError:
            raise
        except (AutoTPError, typer.TyperException) as error:
            if type(error).__name__ == "NoArgsIsHelpError" and not as_json:  # typer does not export it
                print(str(error))
                return ERROR
            _traceback_if_wanted()
            print_error(_words(error), as_json=as_json)
            return ERROR
        except Exception as error:  # noqa: BLE001  # the last boundary: a user sees one line, never a traceback
            if _interrupts:
                print_error("interrupted", as_json=as_json)
                return INTERRUPTED
            _traceback_if_wanted()
            kind = type(error).__name__
            hint = "this is a bug in autotp; AUTOTP_DEBUG=1 prints the traceback"
            print_error(f"{kind}: {error} ({hint})", as_json=as_json)
            return ERROR
        if answer == INTERRUPTED:
            print_error("interrupted", as_json=as_json)
        return int(answer or 0)


def _words(error: Exception) -> str:
    """What is wrong and, for a word that was mistyped, what was meant."""
    message: str = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    found = getattr(error, "possibilities", None)
    if found:
        message = f"{str(error).rstrip('.')}: did you mean {' or '.join(found)}?"
    elif "No such option" in message and (context := getattr(error, "ctx", None)) is not None:
        known = [name for parameter in context.command.params for name in parameter.opts]
        close = difflib.get_close_matches(getattr(error, "option_name", ""), known, n=1)
        message += f": did you mean {close[0]}?" if close else ""
    elif "Missing" in message and (context := getattr(error, "ctx", None)) is not None:
        message = f"{message.rstrip('.')}; {context.command_path} --help tells more"
    return message


def _traceback_if_wanted() -> None:
    if os.environ.get("AUTOTP_DEBUG") or is_verbose():
        traceback.print_exc()


app = typer.Typer(cls=Program, add_completion=True, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("plan")(plan.plan)
app.command("show")(show.show)
app.command("verify")(verify.verify)
app.command("measure")(measure.measure)
app.command("explain")(explain.explain)
app.command("compare")(compare.compare)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("clusters")(clusters.clusters)
app.add_typer(profile.app, name="profile")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"autotp {importlib.metadata.version('autotp')}")
        raise typer.Exit


@app.callback(no_args_is_help=True)
def autotp(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Plan how to split a PyTorch model over devices, see why, and check the result.

    --quiet (no progress, no warnings) and --verbose (every stage with its seconds, tracebacks) may stand anywhere.

    Examples:

      autotp plan examples/llama.py --set size=8b --cluster dgx-h100 --devices 8 -o llama.plan.json --report llama.html

      autotp explain llama.plan.json layers.0.mlp.down_proj

      autotp verify examples/llama.py --devices 2 --backend gloo

    Exit codes: 0 done, 1 verified and the numbers differ, 2 an error. AUTOTP_DEBUG=1 prints tracebacks.
    """


_interrupts: list[int] = []


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Remember it: a library that swallows the exception, half imported, fails otherwise, and that is no bug of ours."""
    _interrupts.append(number)
    signal.default_int_handler(number, frame)


def main() -> None:
    signal.signal(signal.SIGINT, _interrupt)
    # Imports and captures make millions of objects that stay: looking for garbage among them is a tenth of the time.
    gc.set_threshold(200_000)
    app()
