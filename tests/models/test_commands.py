"""Commands: how they are split, followed, and ended."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chapkit_flows.errors import InvalidModel
from chapkit_flows.models import commands
from chapkit_flows.models.commands import Completed, run_command, split_command
from chapkit_flows.models.worker import run_in_worker

PATIENCE = 30.0
# Starts a child, says its process id, and waits for it.
FAMILY = "sleep 600 & echo $!; wait"
# The same, deaf to polite requests; so is the child.
DEAF_FAMILY = f"trap '' TERM; {FAMILY}"


class Lines(logging.Handler):
    """Keeps what is logged, and tells a listener."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.listener: Callable[[str], object] = len

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.listener(record.getMessage())

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def log(lines: Lines) -> Iterator[logging.Logger]:
    logger = logging.Logger("commands", logging.DEBUG)
    logger.addHandler(lines)
    return logger


@pytest.fixture
def run(tmp_path: Path, log: logging.Logger) -> Callable[..., asyncio.Future[Completed]]:
    """Runs a command in a fresh folder."""

    async def run(*arguments: str, timeout_seconds: float = PATIENCE) -> Completed:
        return await run_command(
            arguments, folder=tmp_path, timeout_seconds=timeout_seconds, log=log, logs=tmp_path / ".run/train"
        )

    return run


def python(source: str) -> tuple[str, ...]:
    return sys.executable, "-I", "-c", source


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not yet waited for does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def gone(pid: int) -> bool:
    """Whether a process that was killed has ended by now: the kernel may take a moment."""
    deadline = time.monotonic() + PATIENCE
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


FILES = {"data_file": "data.csv", "geo_file": ""}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("Rscript train.R {data_file}", ["Rscript", "train.R", "data.csv"]),
        ("run {data_file} {geo_file} end", ["run", "data.csv", "", "end"]),
        ("run --in={data_file} {data_file}{data_file}", ["run", "--in=data.csv", "data.csvdata.csv"]),
        ("run 'a b' \"c d\" e\\ f", ["run", "a b", "c d", "e f"]),
        ("run '{data_file}'", ["run", "data.csv"]),
        ("run {data_file.__class__} {0} {} {{data_file}}", ["run", "{data_file.__class__}", "{0}", "{}", "{data.csv}"]),
        ("run {{x}} {unknown} %s $HOME `id`", ["run", "{{x}}", "{unknown}", "%s", "$HOME", "`id`"]),
        ("run a;b | c > d && e $(id) *", ["run", "a;b", "|", "c", ">", "d", "&&", "e", "$(id)", "*"]),
    ],
)
def test_command_is_split_and_placeholders_are_literal(command: str, expected: list[str]) -> None:
    """Quotes group arguments; only the known placeholders are replaced; nothing is left to a shell or to format."""
    assert expected == split_command(command, FILES)


@pytest.mark.parametrize(
    "name",
    ["a b.csv", "it's.csv", 'say "x".csv', "a;b.csv", "$(touch owned).csv", "`id`.csv", "{geo_file}", "*", "\\n"],
)
def test_file_names_are_not_interpreted(name: str) -> None:
    """A file name of any characters stays one argument, letter by letter."""
    assert ["run", f"--in={name}", "g"] == split_command(
        "run --in={data_file} {geo_file}", {"data_file": name, "geo_file": "g"}
    )


@pytest.mark.parametrize(("command", "message"), [("", "empty"), ("  ", "empty"), ("run 'a", "No closing quotation")])
def test_command_that_cannot_be_split_is_refused(command: str, message: str) -> None:
    """An empty command and one with an open quote are refused when the runner is made."""
    with pytest.raises(InvalidModel, match=message):
        split_command(command, {})


async def test_output_is_kept_and_logged(
    run: Callable[..., asyncio.Future[Completed]], lines: Lines, tmp_path: Path
) -> None:
    """Each line goes to the log by its stream's level and to a file; the exit code comes back."""
    done = await run("sh", "-c", "echo out; echo more; echo err >&2; exit 3")
    assert Completed(returncode=3, stdout="out\nmore", stderr="err", timed_out=False) == done
    by_level = {(record.levelname, record.getMessage()) for record in lines.records}
    assert {("INFO", "out"), ("INFO", "more"), ("WARNING", "err")} == by_level
    assert "out\nmore\n" == (tmp_path / ".run/train.stdout").read_text()
    assert "err\n" == (tmp_path / ".run/train.stderr").read_text()


async def test_lines_are_live(run: Callable[..., asyncio.Future[Completed]], lines: Lines, tmp_path: Path) -> None:
    """A line is in the log while the command still runs: the command waits for a file that its line calls for."""
    lines.listener = lambda text: (tmp_path / "heard").touch()
    done = await run("sh", "-c", "echo hear me; while ! [ -e heard ]; do sleep 0.05; done; echo thanks")
    assert "hear me\nthanks" == done.stdout


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"no newline", "no newline"),
        (b"a\n\nb\n", "a\n\nb"),
        (b"windows\r\nlines\r\n", "windows\nlines"),
        (b"bad \xff\xfe bytes \xc3\n", "bad \ufffd\ufffd bytes \ufffd"),
        ("é ☔ 漢".encode(), "é ☔ 漢"),
        (b"nul \0 byte", "nul \0 byte"),
        (b"", ""),
    ],
)
async def test_any_bytes_can_be_printed(
    run: Callable[..., asyncio.Future[Completed]], tmp_path: Path, written: bytes, expected: str
) -> None:
    """Output without a last newline, or that is not UTF-8, is shown as far as it can be and kept as it is."""
    done = await run(*python(f"import sys; sys.stdout.buffer.write({written!r})"))
    assert (0, expected) == (done.returncode, done.stdout)
    assert written == (tmp_path / ".run/train.stdout").read_bytes()


@pytest.mark.parametrize(
    ("source", "last"),
    [
        ("for n in range(100_000): print('x' * 99, n)", "x" * 99 + " 99999"),
        ("import sys; sys.stdout.write('x' * 10_000_000)", None),
        ("import sys; sys.stdout.write('é' * 5_000_000)", None),
    ],
    ids=["lines", "one line", "one line of two-byte letters"],
)
async def test_ten_megabytes_of_output(
    run: Callable[..., asyncio.Future[Completed]], tmp_path: Path, lines: Lines, source: str, last: str | None
) -> None:
    """Ten megabytes do not stall the command; all of them are kept, and only the end stays in memory."""
    done = await run(sys.executable, "-I", "-X", "utf8", "-c", source)
    assert 0 == done.returncode
    assert (tmp_path / ".run/train.stdout").stat().st_size >= 10_000_000
    assert len(done.stdout) <= commands.TAIL_LINES * 4097
    assert max(len(text) for text in lines.texts) <= 4096
    assert not any("\ufffd" in text for text in lines.texts)
    if last is not None:
        assert (commands.TAIL_LINES, last) == (len(done.stdout.splitlines()), done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("program", "reason"),
    [("no-such-program", "No such file or directory"), ("./no-such.sh", "No such file or directory"), (".", "denied")],
)
async def test_program_that_cannot_be_started(
    run: Callable[..., asyncio.Future[Completed]], program: str, reason: str
) -> None:
    """A program that is not there, or is no program, ends like a shell says it: code 127 and its name."""
    done = await run(program, "train.R")
    assert 127 == done.returncode
    assert done.stderr.startswith(f"{program}: ")
    assert reason in done.stderr


async def test_command_reads_no_input(run: Callable[..., asyncio.Future[Completed]]) -> None:
    """A command that asks for input gets the end of file instead of waiting."""
    assert "0" == (await run("sh", "-c", "wc -c | tr -d ' '")).stdout


@pytest.mark.parametrize("family", [FAMILY, DEAF_FAMILY], ids=["polite", "deaf"])
async def test_time_out_ends_the_whole_family(
    run: Callable[..., asyncio.Future[Completed]], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """A command that runs too long is ended with its children, even those that ignore the first request."""
    monkeypatch.setattr(commands, "_GRACE_SECONDS", 0.2)
    done = await run("sh", "-c", family, timeout_seconds=0.5)
    assert done.timed_out
    assert done.returncode < 0
    assert gone(int(done.stdout))


async def test_children_end_with_the_command(run: Callable[..., asyncio.Future[Completed]]) -> None:
    """A child that a finished command leaves behind is ended; the command's own exit code counts."""
    done = await run("sh", "-c", "sleep 600 & echo $!; exit 4")
    assert (4, False) == (done.returncode, done.timed_out)
    assert gone(int(done.stdout))


async def test_child_that_left_the_group_does_not_hold_up_the_run(
    run: Callable[..., asyncio.Future[Completed]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that keeps the command's output open cannot keep the run waiting for its end."""
    monkeypatch.setattr(commands, "_GRACE_SECONDS", 0.2)
    daemon = "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    async with asyncio.timeout(PATIENCE):
        done = await run(*python(daemon))
    os.kill(int(done.stdout), signal.SIGKILL)
    assert (0, False) == (done.returncode, done.timed_out)


@pytest.mark.parametrize("in_worker", [False, True], ids=["same loop", "worker"])
@pytest.mark.parametrize("family", [FAMILY, DEAF_FAMILY], ids=["polite", "deaf"])
async def test_cancellation_ends_the_whole_family(
    run: Callable[..., asyncio.Future[Completed]],
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    in_worker: bool,
    family: str,
) -> None:
    """A cancelled run ends its command with its children before it ends itself."""
    monkeypatch.setattr(commands, "_GRACE_SECONDS", 0.2)
    loop, started = asyncio.get_running_loop(), asyncio.Event()
    lines.listener = lambda text: loop.call_soon_threadsafe(started.set)

    async def command() -> Completed:
        return await run("sh", "-c", family)

    task = asyncio.create_task(run_in_worker(command) if in_worker else command())
    async with asyncio.timeout(PATIENCE):
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert gone(int(lines.texts[0]))


@pytest.mark.parametrize(
    ("what", "value", "said"),
    [("sys.executable", "/nowhere/python", "No such file"), ("_GUARD", "", "ended before it")],
)
async def test_command_without_guard_runs_and_says_so(
    run: Callable[..., asyncio.Future[Completed]],
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    value: str,
    said: str,
) -> None:
    """If the process that watches over a command cannot start, or ends, the command ends as always; the log warns."""
    monkeypatch.setattr(commands, "_GUARD", value) if what == "_GUARD" else monkeypatch.setattr(
        sys, "executable", value
    )
    done = await run("sh", "-c", "sleep 1; echo done")
    assert (0, "done") == (done.returncode, done.stdout)
    (warning,) = [record.getMessage() for record in lines.records if record.levelno == logging.WARNING]
    assert said in warning
    assert "would have run on" in warning
