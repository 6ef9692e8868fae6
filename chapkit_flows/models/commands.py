"""Run one command of a model and follow what it prints."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chapkit_flows.errors import InvalidModel
from chapkit_flows.models.progress import report_line

TAIL_LINES = 40
_MAX_LINE = 4096
_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.1
_CHUNK = 256 * 1024
# Waits for a byte that says "all is well". Without one, the process that should have written it is dead.
_GUARD = f"""
import os, signal, sys, time
if not sys.stdin.buffer.read(1):
    import contextlib, shutil
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int(sys.argv[1]), signal.SIGTERM)
        time.sleep({_GRACE_SECONDS})
        os.killpg(int(sys.argv[1]), signal.SIGKILL)
    shutil.rmtree(sys.argv[2], ignore_errors=True)
"""
_UNGUARDED = "Had this process been killed, the command would have run on, and its folder stayed."
_PLACEHOLDER = re.compile(r"\{(\w+)\}")

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A command that has ended.

    Attributes:
        returncode: Its exit code; negative when a signal ended it.
        stdout: The last lines of its output.
        stderr: The last lines of its error output.
        timed_out: Whether it was stopped because it ran too long.
    """

    returncode: int
    stdout: str
    stderr: str
    timed_out: bool


def split_command(command: str, files: Mapping[str, str]) -> list[str]:
    """Split a command into arguments, then put file names for the placeholders in each of them.

    Only `{name}` for a name in `files` is replaced, literally: any other brace stays, and a file name can
    neither split an argument nor be read by a shell.

    Raises:
        InvalidModel: The command is empty or its quotes do not match.
    """
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise InvalidModel(f"The command {command!r} cannot be split into arguments: {error}.") from error
    if not arguments:
        raise InvalidModel("The command is empty. Write a program and its arguments.")
    return [_PLACEHOLDER.sub(lambda found: files.get(found[1], found[0]), argument) for argument in arguments]


async def run_command(
    arguments: Sequence[str],
    *,
    folder: Path,
    timeout_seconds: float,
    log: Log,
    logs: Path,
    mask: Callable[[str], str] = str,
) -> Completed:
    """Run a program in `folder`, without a shell, and log each line that it prints.

    The program gets a process group of its own, which is ended as a whole: on time-out, on cancellation,
    when the program ends before its children do, and when this process is killed.

    Args:
        folder: A scratch folder; it is removed when this process is killed meanwhile.
        logs: `<logs>.stdout` and `<logs>.stderr` receive everything that it prints.
        mask: Takes the secrets out of a line, for the log and the last lines.
    """
    logs.parent.mkdir(parents=True, exist_ok=True)
    stdout, stderr = logs.with_suffix(".stdout"), logs.with_suffix(".stderr")
    try:
        # Into files, not pipes: a child that stays behind would hold a pipe open, and so the run.
        with stdout.open("wb") as out, stderr.open("wb") as err:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
    except OSError as error:
        return Completed(returncode=127, stdout="", stderr=f"{arguments[0]}: {error.strerror}", timed_out=False)
    with (
        _guarded(process.pid, folder, log),
        _Follower(stdout, log=log, level=logging.INFO, mask=mask) as followed,
        _Follower(stderr, log=log, level=logging.WARNING, mask=mask) as followed_too,
    ):
        timed_out = await _wait(process, timeout_seconds, (followed, followed_too))
    return Completed(
        returncode=process.returncode if process.returncode is not None else -signal.SIGKILL,
        stdout="\n".join(followed.tail),
        stderr="\n".join(followed_too.tail),
        timed_out=timed_out,
    )


async def _wait(process: asyncio.subprocess.Process, seconds: float, followers: Sequence[_Follower]) -> bool:
    """Follow a program to its end, and see to it that nothing of it runs on; return whether it ran too long."""
    ended = asyncio.ensure_future(process.wait())
    try:
        async with asyncio.timeout(seconds):
            while not ended.done():
                bytes_read = sum(follower.read() for follower in followers)
                await asyncio.wait({ended}, timeout=0 if bytes_read else _POLL_SECONDS)
    except TimeoutError:
        return True
    finally:
        ended.cancel()
        await _end_group(process)
        for follower in followers:
            while follower.read():
                pass
    return False


@contextmanager
def _guarded(group: int, folder: Path, log: Log) -> Iterator[None]:
    """Within it, the group is ended and its folder removed if this process dies: nothing else would do it.

    The folder may hold the secret values of a config.
    """
    command = [sys.executable, "-I", "-S", "-c", _GUARD, str(group), str(folder)]
    nothing = subprocess.DEVNULL
    try:
        # In a session of its own: what ends this process by its group must not end the guard as well.
        guard = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=nothing, stderr=nothing, start_new_session=True
        )
    except OSError as error:  # the machine may have no process left for it
        log.warning("Nothing watches over the command: %s. %s", error.strerror, _UNGUARDED)
        yield
        return
    with guard:
        try:
            yield
        finally:
            assert guard.stdin is not None
            try:
                guard.stdin.write(b".")
            except BrokenPipeError:
                log.warning("The process that watched over the command ended before it. %s", _UNGUARDED)


class _Follower:
    """Logs, line by line, what a program writes to a file, and remembers its last lines.

    Attributes:
        tail: The last lines.
    """

    def __init__(self, file: Path, *, log: Log, level: int, mask: Callable[[str], str]) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._source = file.open("rb")
        self._log = log
        self._mask = mask
        self._level = level
        self._rest = b""

    def __enter__(self) -> _Follower:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._rest:
            self._emit(self._rest)
        self._source.close()

    def read(self) -> int:
        """Log the next complete lines; return how many bytes were new."""
        chunk = self._source.read(_CHUNK)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        # A progress bar may never end its line: pass it on in pieces instead of holding it.
        while len(self._rest) > _MAX_LINE:
            piece, self._rest = _cut(self._rest)
            lines.append(piece)
        for line in lines:
            self._emit(line)
        return len(chunk)

    def _emit(self, line: bytes) -> None:
        text = self._mask(line.decode(errors="replace").rstrip("\r")[:_MAX_LINE])
        self.tail.append(text)
        report_line(text)
        self._log.log(self._level, "%s", text)


def _cut(line: bytes) -> tuple[bytes, bytes]:
    """Cut a piece off a line, between two UTF-8 characters."""
    end = _MAX_LINE
    while end > _MAX_LINE - 3 and line[end] & 0xC0 == 0x80:
        end -= 1
    return line[:end], line[end:]


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """End the program and every child it left behind: politely first."""
    for sign, seconds in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            continue
        if sign is signal.SIGTERM and _group_alive(process.pid):
            continue
    await process.wait()


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
