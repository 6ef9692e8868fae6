"""Works on all that a filter is true of, newest first, in batches of which each is one transaction.

What one batch changes does not disturb the next: that begins below the last id of the one before. What is made
meanwhile is left alone. Whatever ends the work leaves whole batches done; the same work again does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from sqlalchemy.orm import Session

from chapkit_flows.lineage.annotations import change_tags, check_keys, histories, load_tags
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.search import search_artifacts, search_runs
from chapkit_flows.lineage.walks import End
from chapkit_flows.refs import ArtifactRef
from chapkit_flows.resources import Resources
from chapkit_flows.upkeep.annotations import write_history
from chapkit_flows.upkeep.trash import bring_back, discard

BATCH = 500
SHOWN = 5
_THREADS = 4

Thing: TypeAlias = ArtifactRef | RunFact
T = TypeVar("T", ArtifactRef, RunFact)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a work would do.

    Attributes:
        matched: How many things were chosen.
        count: How many of them the work would change, write or read.
        bytes: Of these, if they are artifacts.
        first: Some of these.
        newest: The greatest id that was chosen; None if nothing was.
    """

    matched: int
    count: int
    bytes: int
    first: tuple[Thing, ...]
    newest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What became of one batch.

    Attributes:
        matched: How many things it had.
        changed: How many of them are different now.
        gone: What stays in the trash because its bytes are gone.
    """

    matched: int
    changed: int
    gone: tuple[ArtifactRef, ...] = ()


def find_artifacts(
    database: Database, where: str, *, trash: bool = False, newest: str | None = None, size: int = BATCH
) -> Iterator[list[ArtifactRef]]:
    """The artifacts that a filter is true of, in batches; none where there are none.

    Args:
        database: To read; no transaction is open between two batches.
        where: The filter.
        trash: Those in the trash, instead of those that are not.
        newest: Leave out what has a greater id: it came later than what was looked at before.
        size: Of a batch.

    Raises:
        InvalidFilter: `where` is not a filter.
    """
    return _pages(
        lambda before: search_artifacts(database, where, limit=size, before=before, trash=trash), newest=newest
    )


def find_runs(
    database: Database, where: str, *, newest: str | None = None, size: int = BATCH
) -> Iterator[list[RunFact]]:
    """The runs that a filter is true of, in batches, as `find_artifacts` gives artifacts.

    Raises:
        InvalidFilter: `where` is not a filter.
    """
    return _pages(lambda before: search_runs(database, where, limit=size, before=before), newest=newest)


def _pages(search: Callable[[str | None], Sequence[T]], *, newest: str | None) -> Iterator[list[T]]:
    before: str | None = None
    while page := search(before):
        before = page[-1].id
        if kept := [thing for thing in page if newest is None or thing.id <= newest]:
            yield kept


def survey(
    batches: Iterable[Sequence[Thing]], needed: Callable[[Sequence[Thing]], Collection[str]] | None = None
) -> Survey:
    """Look at what is chosen, and change nothing.

    Args:
        batches: As `find_artifacts` or `find_runs` gives them.
        needed: The ids of those in a batch that there is something to do for; None for all.
    """
    matched = count = total = 0
    first: list[Thing] = []
    newest: str | None = None
    for batch in batches:
        ids = None if needed is None else set(needed(batch))
        some = [thing for thing in batch if ids is None or thing.id in ids]
        matched, count = matched + len(batch), count + len(some)
        total += sum(thing.size for thing in some if isinstance(thing, ArtifactRef))
        first += some[: SHOWN - len(first)]
        newest = max(newest or "", *(thing.id for thing in batch))
    return Survey(matched=matched, count=count, bytes=total, first=tuple(first), newest=newest)


def untagged(database: Database, batch: Sequence[Thing], wanted: Mapping[str, str | None]) -> list[str]:
    """The ids of those whose tags are not as wanted; None stands for a tag that is not there."""
    standing = load_tags(database, [thing.id for thing in batch])
    return [
        subject_id
        for subject_id, tags in standing.items()
        if any(tags.get(key) != value for key, value in wanted.items())
    ]


def tag(
    resources: Resources, batches: Iterable[Sequence[Thing]], wanted: Mapping[str, str | None], *, by: str
) -> Iterator[Step]:
    """Set the tags that have a value, remove the others, of each batch at once.

    Raises:
        LineageError: A key or a value cannot be that of a tag.
        StoreUnavailable: The store cannot be written: nothing of the batch is tagged then.
    """
    check_keys(key for key, value in wanted.items() if value is not None)
    for batch in batches:
        ids = [thing.id for thing in batch]
        end: End = "artifact" if isinstance(batch[0], ArtifactRef) else "run"
        yield Step(matched=len(batch), changed=_tag_batch(resources, ids, end, wanted, by=by))


def _tag_batch(resources: Resources, ids: Sequence[str], end: End, wanted: Mapping[str, str | None], *, by: str) -> int:
    def work(session: Session) -> int:
        changed = change_tags(session, ids, end, wanted=wanted, by=by)
        said = histories(session, changed)
        # Before the rows count: what dies in between is done again, and a filter may not choose it once it is tagged.
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda subject_id: write_history(resources.store, subject_id, said[subject_id]), changed))
        return len(changed)

    resources.store.reach()  # others wait for the database while the histories are written
    return resources.database.transact(work)


def delete(
    resources: Resources, batches: Iterable[Sequence[ArtifactRef]], *, actor: str, reason: str
) -> Iterator[Step]:
    """Put each batch into the trash.

    Raises:
        UpkeepError: There is no reason.
        StoreUnavailable: The store cannot be written: nothing of the batch is in the trash then.
    """
    for batch in batches:
        made = discard(resources, batch, actor=actor, reason=reason)
        yield Step(matched=len(batch), changed=len(made))


def restore(resources: Resources, batches: Iterable[Sequence[ArtifactRef]], *, actor: str) -> Iterator[Step]:
    """Take each batch out of the trash, but for what has lost its bytes.

    Raises:
        StoreUnavailable: The store cannot be used: the batch is in the trash as before then.
    """
    for batch in batches:
        back, gone = bring_back(resources, batch, actor=actor)
        yield Step(matched=len(batch), changed=len(back), gone=tuple(gone))
