"""The command `chapkit-flows`. Each command's module is imported only when it runs."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import select
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from chapkit_flows.cli.parser import build_parser
from chapkit_flows.errors import ChapkitFlowsError, DataError

# For a Prefect that runs without a server of its own. Without internet its telemetry prints a traceback; a first
# start has to migrate a database, which takes longer than Prefect waits by default.
EMBEDDED_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 when it is done; 2 when something the user can put right is wrong; 1 when a check (`doctor`, `fsck`,
        `rehearse` …) finds a fault; 141 when whoever reads the output stops, as `head` does. Any other exception is
        a fault of this program and keeps its traceback.
    """
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _silence():
            raise
        return 141


def _silence() -> bool:
    """Let output that nobody reads any more go nowhere, also what is written at exit; whether there is any."""
    unread = [stream for stream in (sys.stdout, sys.stderr) if _is_unread(stream.fileno())]
    for stream in unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(unread)


def _is_unread(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _run(arguments: Sequence[str]) -> int:
    options = build_parser().parse_args(arguments)
    for name, value in EMBEDDED_DEFAULTS.items():
        os.environ.setdefault(name, value)
    if not options.verbose:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    try:
        _check_text(arguments)
        command: Callable[[argparse.Namespace], int] = _find_command(options.command)
        return command(options)
    except ChapkitFlowsError as error:
        return _show(error, options)
    except ValueError as error:
        # Settings are read where they are first needed: by Prefect as soon as it is imported.
        refusal: ChapkitFlowsError | None = _find_command("output:refuse_setting")(error)
        if refusal is None:
            raise
        return _show(refusal, options)


def _show(error: ChapkitFlowsError, options: argparse.Namespace) -> int:
    code: int = _find_command("output:show_error")(error, options)
    return code


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse what is not UTF-8: it could neither be sent to a server nor printed."""
    for argument in arguments:
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise DataError(f"The argument {argument!a} is not UTF-8 text. Rename the file, and pass its new name.")


def _find_command(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(_import(f"chapkit_flows.cli.{module}"), name)
    return function


def _import(module: str) -> ModuleType:
    """Import a module, and keep the garbage collector from what it brings: all of that stays to the end.

    Looking through it again and again, and once more at exit, is a fifth of what a command takes.
    """
    if module in sys.modules or not gc.isenabled():
        return importlib.import_module(module)
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.freeze()
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
