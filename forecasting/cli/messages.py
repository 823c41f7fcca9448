"""Messages: what a command says on stderr, and errors as one line with an exit status."""

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import typer

__all__ = []

Command = TypeVar("Command", bound=Callable[..., None])

_EXPECTED = (ValueError, TypeError, RuntimeError, ImportError, MemoryError)


class Failure(ValueError):
    """What ends a command with status 1: a message that is complete."""


class Voice:
    """What says what a command is doing, on stderr.

    Args:
        quiet: Whether to say nothing.
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    @property
    def bars(self) -> bool:
        """Whether progress bars make sense: on a terminal, not in a log."""
        return not self.quiet and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Writes a line."""
        if not self.quiet:
            typer.echo(text, err=True)

    def notes(self, notes: dict[str, dict[Any, str]]) -> None:
        """Writes what models could not do as asked."""
        for alias, found in notes.items():
            for id, text in list(found.items())[:5]:
                self.say(f"note: {alias}: {text}" if id is None else f"note: {alias}, {id}: {text}")
            if len(found) > 5:
                self.say(f"note: {alias}: and {len(found) - 5} more")


def reported(command: Command) -> Command:
    """Makes errors of a command one line and status 1; ``debug=True`` lets them through."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = _quiet if options.get("quiet") else _warn
            try:
                command(*args, **options)
            except (typer.BadParameter, typer.Exit, typer.Abort, BrokenPipeError):
                raise
            except Exception as error:
                if options.get("debug"):
                    raise
                typer.echo(f"seqlatent: error: {sentence(error)}", err=True)
                raise typer.Exit(1) from error

    return run  # type: ignore[return-value]


def usage(message: str, option: str) -> typer.BadParameter:
    """An error of the command line itself, status 2."""
    return typer.BadParameter(message, param_hint=f"'{option}'")


def sentence(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror:
        about = "" if error.filename is None else f"{error.filename}: "
        return f"{about}{error.strerror[:1].lower()}{error.strerror[1:]}"
    text = " ".join(str(error).split())
    if isinstance(error, (*_EXPECTED, OSError)) and text:
        return text
    return f"unexpected {type(error).__name__}: {text}; --debug shows where it came from."


def _warn(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    typer.echo(f"seqlatent: warning: {' '.join(str(message).split())}", err=True)


def _quiet(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    pass
