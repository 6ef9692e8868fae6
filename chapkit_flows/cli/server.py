"""Running a flow in this process, and what the Prefect server says to it."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Coroutine
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any, TypeVar

import httpx
from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound, TerminationSignal
from prefect.settings import PREFECT_API_URL

from chapkit_flows.cli.output import say
from chapkit_flows.cli.progress import follow_run, show_uploads
from chapkit_flows.data.sources import mask_uri
from chapkit_flows.errors import LineageError, ServerRefused, ServerUnavailable
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import get_run
from chapkit_flows.resources import open_facts

T = TypeVar("T")

_SHOWN = 300  # characters of an answer


def run_here(work: Coroutine[Any, Any, T], options: argparse.Namespace, *, follow: bool = True) -> T:
    """Run a flow in this process, against the server that Prefect is set to, or a temporary one.

    Raises:
        ServerUnavailable: The server that Prefect is set to does not answer.
        ServerRefused: It answers, but not with what was asked for.
    """
    url = PREFECT_API_URL.value()
    if not url and not options.json:
        say("Starting a temporary Prefect server (20 seconds the first time, then 5) …")
    try:
        with follow_run(options) if follow else nullcontext(), show_uploads(options):
            return asyncio.run(work)
    except TerminationSignal as stop:
        say("Stopped.")
        raise SystemExit(128 + stop.signal) from None
    except (httpx.HTTPError, httpx.InvalidURL, ObjectNotFound, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "Failed to reach API" not in str(error):
            raise
        # Not as the cause: the message of an answer may repeat a megabyte of config.
        refusal = explain_refusal(url, error)
        raise type(refusal)(f"{refusal}{_other_version(url, refusal)}") from None


def explain_refusal(url: str | None, error: Exception) -> ServerRefused | ServerUnavailable:
    """What Prefect's client raises, in words; it says "Failed to reach API" whatever the server answered."""
    name = f"The Prefect server at {mask_uri(url) if url else 'this machine'}"
    reason = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    if isinstance(reason, httpx.HTTPStatusError) and reason.response.status_code != 404:
        return ServerRefused(f"{name} {_explain(reason.response)}")
    if isinstance(reason, httpx.HTTPStatusError | ObjectNotFound | ValueError):
        return ServerRefused(
            f"{name} does not know what Prefect asks for. Correct PREFECT_API_URL: it ends in /api, as in "
            "http://127.0.0.1:4200/api"
        )
    if isinstance(reason, httpx.ReadTimeout | httpx.WriteTimeout | httpx.PoolTimeout):
        return ServerUnavailable(
            f"{name} takes too long to answer. It may have too much to do: try again later, or wait longer with "
            "PREFECT_API_REQUEST_TIMEOUT=300 (seconds)."
        )
    return ServerUnavailable(
        f"{name} does not answer: {mask_uri(str(reason)).rstrip('.') or type(reason).__name__}. Start it with "
        "`prefect server start`, correct PREFECT_API_URL, or unset it to use a temporary server."
    )


def _other_version(url: str | None, refusal: ServerRefused | ServerUnavailable) -> str:
    """That a server which refuses something is of another version, if it is."""
    if not url or isinstance(refusal, ServerUnavailable):
        return ""
    try:
        theirs = httpx.get(f"{url}/admin/version", timeout=5).raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return ""
    mine = version("prefect")
    if not isinstance(theirs, str) or theirs.split(".")[:2] == mine.split(".")[:2]:
        return ""
    return f" It runs Prefect {theirs}, this installation {mine}: use the same minor version."


def _explain(response: httpx.Response) -> str:
    """What a server did not want, and what to do about it."""
    status = response.status_code
    if status in (401, 403):
        return (
            f"wants authentication ({status}). Set PREFECT_API_AUTH_STRING to user:password (or PREFECT_API_KEY), "
            "and check that it may do this."
        )
    said = " ".join(_message(response).split())
    said = f"{said[:_SHOWN]}…" if len(said) > _SHOWN else said
    if status >= 500:
        return f"failed ({status}): {said}. Look into its log, and try again."
    return f"refused the request ({status}): {said}. Correct what it names; parameters and config may have 512 kB."


def _message(response: httpx.Response) -> str:
    """The words of an answer, without the input that it repeats."""
    try:
        answer = response.json()
    except ValueError:
        return response.text or response.reason_phrase
    if not isinstance(answer, dict):
        return str(answer)
    detail = answer.get("exception_detail") or answer.get("detail") or answer.get("exception_message") or answer
    if isinstance(detail, list):
        found = [item for item in detail if isinstance(item, dict) and "msg" in item]
        return "; ".join(f"{'.'.join(map(str, item.get('loc', ())))}: {item['msg']}" for item in found) or str(detail)
    return str(detail)


def watched(flow: Flow[..., Any], flow_run_ids: list[str]) -> Flow[..., Any]:
    """The same flow, which adds the id of its Prefect run to a list when it starts."""

    def remember(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
        flow_run_ids.append(str(flow_run.id))

    return flow.with_options(on_running=[*flow.on_running_hooks, remember])


def recorded_run(flow_run_ids: list[str]) -> RunFact | None:
    """What is recorded of the run of a flow that was watched; None if it came to nothing."""
    if not flow_run_ids:
        return None
    try:
        return get_run(open_facts(), flow_run_ids[-1])
    except LineageError:  # the database may be what the run failed on
        return None
