"""The registry: numbered versions of a model, and the aliases that say which of them is in use.

A version never changes. Each change of an alias is a row that says who, why and on what evidence; the last one decides,
so that the history of an alias is its state.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime

from sqlalchemy import Select, delete, func, insert, select
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.errors import InvalidAlias, ModelVersionNotFound, PromotionConflict, RegistryError
from chapkit_flows.lineage.assignments import AliasAction, Assignment, Decision, ModelVersion
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.tables import ArtifactRow, AssignmentRow, ModelVersionRow, RunArtifactRow, RunRow
from chapkit_flows.refs import check_id, now

PROTECTED = ("champion",)
"""Aliases that move by promotion and rollback only."""

_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_RESERVED = ("latest",)


def register(database: Database, artifact_id: str, *, by: str, note: str = "") -> ModelVersion:
    """Give a trained model the next number among the versions of its model; one that has a number keeps it.

    Args:
        database: To write.
        artifact_id: Of a trained model.
        by: Who registers it.
        note: What should be known of it.

    Raises:
        InvalidId: It is not an id.
        RegistryError: It is not what a completed training made.
    """
    wanted = check_id(artifact_id)

    def work(session: Session) -> ModelVersion:
        known = session.scalars(select(ModelVersionRow).where(col(ModelVersionRow.artifact_id) == wanted)).first()
        if known is not None:
            return _to_version(known)
        model, digest = _trained(session, wanted)
        last = session.scalar(select(func.max(ModelVersionRow.number)).where(col(ModelVersionRow.model) == model))
        version = ModelVersion(
            model=model,
            number=(last or 0) + 1,
            artifact_id=wanted,
            digest=digest,
            registered_at=now(),
            registered_by=by,
            note=note,
        )
        # Another process may take the same number meanwhile: the transaction is then run again.
        session.execute(insert(ModelVersionRow), [asdict(version)])
        return version

    return database.transact(work)


def assign(database: Database, version: ModelVersion, *, alias: str, decision: Decision) -> Assignment:
    """Point an alias that is not protected to a version, whatever it pointed to.

    Raises:
        InvalidAlias: The name cannot be one, or is one that only promotion moves.
        RegistryError: There is no reason.
    """
    if check_alias(alias) in PROTECTED:
        raise InvalidAlias(
            f"The alias {alias} moves by promotion only: chapkit-flows models promote {version.model}@{version.number}"
        )
    return _change(database, _proposal(version.model, alias, "set", version.number, decision))


def remove_alias(database: Database, model: str, *, alias: str, decision: Decision) -> Assignment:
    """Let an alias that is not protected point to nothing.

    Raises:
        InvalidAlias: The name cannot be one, or is one that only promotion moves.
        ModelVersionNotFound: It points to nothing.
        RegistryError: There is no reason.
    """
    if check_alias(alias) in PROTECTED:
        raise InvalidAlias(f"The alias {alias} cannot be removed; promote another version instead.")

    def check(holder: Assignment | None) -> None:
        if holder is None or holder.number is None:
            raise ModelVersionNotFound(f"{model}@{alias} points to nothing. {_listing(model)}")

    return _change(database, _proposal(model, alias, "remove", None, decision), check)


def promote(
    database: Database, version: ModelVersion, *, alias: str, expected: int | None, decision: Decision
) -> Assignment:
    """Point an alias to a version, if it still points to the version that the decision was made against.

    Args:
        database: To write.
        version: The new holder.
        alias: Such as `champion`.
        expected: The number of the version that held the alias when the decision was made; None for none.
        decision: Who, why, and what the gate saw.

    Raises:
        InvalidAlias: The name cannot be one.
        PromotionConflict: Another version holds the alias by now, or this one does already.
        RegistryError: There is no reason.
    """

    def check(holder: Assignment | None) -> None:
        held = holder.number if holder else None
        if held == version.number:
            raise PromotionConflict(
                f"{version.model}@{version.number} is {alias} already{_since(holder)}. Nothing was changed."
            )
        if held != expected:
            raise PromotionConflict(
                f"{version.model}@{alias} is {_version_text(held)} by now{_since(holder)}; the decision was made "
                f"against {_version_text(expected)}. Nothing was changed: compare again."
            )

    return _change(database, _proposal(version.model, check_alias(alias), "promote", version.number, decision), check)


def rollback(database: Database, model: str, *, alias: str, decision: Decision) -> Assignment:
    """Point an alias to the version that held it before the one that holds it now.

    Raises:
        InvalidAlias: The name cannot be one.
        ModelVersionNotFound: The alias points to nothing, or pointed to no version before.
        PromotionConflict: It was moved at the same time.
        RegistryError: There is no reason.
    """
    past = assignments(database, model, alias=check_alias(alias))
    stack = _holder_stack(past)
    if not stack:
        raise ModelVersionNotFound(f"{model}@{alias} points to nothing. {_listing(model)}")
    if len(stack) < 2:
        raise ModelVersionNotFound(
            f"{model}@{alias} is version {stack[-1]}, and was none before: there is nothing to roll back to."
        )

    def check(holder: Assignment | None) -> None:
        if holder is None or holder.id != past[-1].id:
            raise PromotionConflict(f"{model}@{alias} was moved meanwhile. Nothing was changed: look again.")

    return _change(database, _proposal(model, alias, "rollback", stack[-2], decision), check)


def previous_holder(database: Database, model: str, *, alias: str) -> int | None:
    """The number of the version to which a rollback would give an alias back; None for none.

    Raises:
        InvalidAlias: The name cannot be one.
    """
    stack = _holder_stack(assignments(database, model, alias=check_alias(alias)))
    return stack[-2] if len(stack) > 1 else None


def check_alias(alias: str) -> str:
    """Return the alias.

    Raises:
        InvalidAlias: It is not a name for one.
    """
    if not _ALIAS.fullmatch(alias) or alias in _RESERVED:
        shown = alias if len(alias) <= 40 else alias[:40] + "…"
        raise InvalidAlias(
            f"{shown!r} cannot be an alias. Write up to 63 lower-case letters, digits, - and _, a letter first; "
            f"not {' or '.join(_RESERVED)}."
        )
    return alias


def list_versions(
    database: Database, *, model: str | None = None, limit: int = 50, before: str | None = None
) -> list[ModelVersion]:
    """Model versions, the last registered first, in pages.

    Args:
        database: To read.
        model: Only versions of this model.
        limit: Length of a page.
        before: The artifact id of the last version on the page before.

    Raises:
        ModelVersionNotFound: `before` is no version.
    """
    query = select(ModelVersionRow)
    if model is not None:
        query = query.where(col(ModelVersionRow.model) == model)
    with database.read() as session:
        if before is not None:
            last = session.scalars(_version_of(before)).first()
            if last is None:
                raise ModelVersionNotFound(f"No model version is the artifact {before}. {_listing(model)}")
            query = query.where(col(ModelVersionRow.id) < last.id)
        rows = session.scalars(query.order_by(col(ModelVersionRow.id).desc()).limit(limit))
        return [_to_version(row) for row in rows]


def scan_versions(database: Database, model: str) -> list[ModelVersion]:
    """All versions of a model, in the order of their numbers."""
    query = select(ModelVersionRow).where(col(ModelVersionRow.model) == model).order_by(col(ModelVersionRow.number))
    with database.read() as session:
        return list(map(_to_version, session.scalars(query)))


def find_version(database: Database, model: str, selector: str) -> ModelVersion:
    """The version of a model with a number, or to which an alias points now.

    Raises:
        ModelVersionNotFound: There is none.
        InvalidAlias: The selector is neither a number nor a name for an alias.
    """
    number = int(selector) if selector.isdecimal() and len(selector) < 10 else None
    if number is None:
        check_alias(selector)
    with database.read() as session:
        if number is None:
            row = session.scalars(_head(model, selector)).first()
            number = row.number if row else None
        found = session.scalars(_numbered(model, number)).first() if number is not None else None
    if found is None:
        raise ModelVersionNotFound(f"There is no {model}@{selector}. {_listing(model)}")
    return _to_version(found)


def version_of(database: Database, artifact_id: str) -> ModelVersion | None:
    """The version that a trained model is registered as."""
    with database.read() as session:
        row = session.scalars(_version_of(artifact_id)).first()
        return None if row is None else _to_version(row)


def assignments(database: Database, model: str, *, alias: str | None = None) -> list[Assignment]:
    """All changes of the aliases of a model, the oldest first."""
    query = select(AssignmentRow).where(col(AssignmentRow.model) == model)
    if alias is not None:
        query = query.where(col(AssignmentRow.alias) == alias)
    with database.read() as session:
        rows = session.scalars(query.order_by(col(AssignmentRow.alias), col(AssignmentRow.sequence)))
        return sorted(map(_to_assignment, rows), key=lambda one: (one.moment, one.alias, one.sequence))


def holders(database: Database, model: str) -> dict[str, Assignment]:
    """The last change of each alias of a model that points to a version, by alias."""
    last: dict[str, Assignment] = {}
    for change in sorted(assignments(database, model), key=lambda one: one.sequence):
        last[change.alias] = change
    return {alias: change for alias, change in sorted(last.items()) if change.number is not None}


def as_of(database: Database, model: str, alias: str, moment: datetime) -> Assignment | None:
    """How an alias stood at a moment: the change that was the last one then; None if it pointed to nothing."""
    query = (
        select(AssignmentRow)
        .where(
            col(AssignmentRow.model) == model,
            col(AssignmentRow.alias) == check_alias(alias),
            col(AssignmentRow.moment) <= moment,
        )
        .order_by(col(AssignmentRow.sequence).desc())
        .limit(1)
    )
    with database.read() as session:
        row = session.scalars(query).first()
        return None if row is None or row.number is None else _to_assignment(row)


def restore_registry(
    database: Database, versions: Sequence[ModelVersion], changes: Sequence[tuple[Assignment, str | None]]
) -> int:
    """Record versions and changes of aliases as they were recorded before; what is there stays.

    Args:
        database: To write.
        versions: Of any models.
        changes: Each with the id of the version that it points to.

    Returns:
        How many were not there. If a number was given twice, since others were registered meanwhile, all versions of
        the model, and all changes of an alias, are numbered again by their time.
    """

    def work(session: Session) -> int:
        added = 0
        for model in sorted({one.model for one in versions} | {change.model for change, _ in changes}):
            added += _merge(
                session,
                model,
                [one for one in versions if one.model == model],
                [one for one in changes if one[0].model == model],
            )
        return added

    return database.transact(work)


def _merge(
    session: Session, model: str, versions: Sequence[ModelVersion], changes: Sequence[tuple[Assignment, str | None]]
) -> int:
    there = list(map(_to_version, session.scalars(select(ModelVersionRow).where(col(ModelVersionRow.model) == model))))
    past = list(map(_to_assignment, session.scalars(select(AssignmentRow).where(col(AssignmentRow.model) == model))))
    # Registered again while the database was lost: the artifact has its number already.
    ids = {one.artifact_id: one.id for one in there}
    same = {one.id: ids.setdefault(one.artifact_id, one.id) for one in sorted(versions, key=lambda one: one.id)}
    known = {one.id for one in there}
    all_versions = _renumbered(there + [one for one in versions if same[one.id] == one.id and one.id not in known])
    numbers = {one.id: one.number for one in all_versions}
    held = {one.number: one.id for one in there}
    pointing = {one.id: held[one.number] for one in past if one.number is not None}
    pointing |= {change.id: same[target] for change, target in changes if target is not None}
    known = {one.id for one in past}
    all_changes = _resequenced(
        [
            replace(one, number=numbers[pointing[one.id]] if one.id in pointing else one.number)
            for one in past + [change for change, _ in changes if change.id not in known]
        ]
    )
    if len(all_versions) == len(there) and len(all_changes) == len(past):
        return 0
    for table, rows, before in ((ModelVersionRow, all_versions, there), (AssignmentRow, all_changes, past)):
        session.execute(delete(table).where(col(table.id).in_([one.id for one in before])))
        if rows:
            session.execute(insert(table), list(map(asdict, rows)))
    return len(all_versions) - len(there) + len(all_changes) - len(past)


def _renumbered(versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    if len({one.number for one in versions}) == len(versions):
        return list(versions)
    in_time = sorted(versions, key=lambda one: (one.registered_at, one.id))
    return [replace(one, number=number) for number, one in enumerate(in_time, start=1)]


def _resequenced(changes: Sequence[Assignment]) -> list[Assignment]:
    """The changes with sequences, and numbers before, that follow each other in each alias."""
    in_time: defaultdict[str, list[Assignment]] = defaultdict(list)
    for change in sorted(changes, key=lambda one: (one.moment, one.sequence, one.id)):
        in_time[change.alias].append(change)
    found = []
    for some in in_time.values():
        if len({one.sequence for one in some}) == len(some):
            found += some
            continue
        before = [None, *(one.number for one in some)]
        found += [
            replace(one, sequence=sequence, previous=before[sequence - 1]) for sequence, one in enumerate(some, start=1)
        ]
    return found


def _change(
    database: Database, proposal: Assignment, check: Callable[[Assignment | None], None] | None = None
) -> Assignment:
    """Add a row to the history of an alias, in one transaction with the look at the last one."""
    if not proposal.reason:
        raise RegistryError("A change of an alias needs a reason: it is shown to whoever asks why the model changed.")

    def work(session: Session) -> Assignment:
        row = session.scalars(_head(proposal.model, proposal.alias)).first()
        holder = None if row is None else _to_assignment(row)
        if check is not None:
            check(holder)
        change = proposal if holder is None else _after(holder, proposal)
        # Two changes at once have the same sequence number: the second is refused, and looks again.
        session.execute(insert(AssignmentRow), [asdict(change)])
        return change

    return database.transact(work)


def _proposal(model: str, alias: str, action: AliasAction, number: int | None, decision: Decision) -> Assignment:
    return Assignment(
        model=model,
        alias=alias,
        sequence=1,
        number=number,
        previous=None,
        action=action,
        actor=decision.actor,
        reason=decision.reason.strip(),
        evidence=decision.evidence,
        moment=now(),
    )


def _after(holder: Assignment, proposal: Assignment) -> Assignment:
    # A clock that was set back must not make the history run backwards.
    moment = max(proposal.moment, holder.moment)
    return replace(proposal, sequence=holder.sequence + 1, previous=holder.number, moment=moment)


def _holder_stack(past: Sequence[Assignment]) -> list[int]:
    """The versions that an alias points to, and would point to after each further rollback; the current one last."""
    stack: list[int] = []
    for change in sorted(past, key=lambda one: one.sequence):
        if change.action == "rollback":
            stack.pop()
        elif change.number is None:
            stack.clear()
        else:
            stack.append(change.number)
    return stack


def _trained(session: Session, artifact_id: str) -> tuple[str, str]:
    """The model and the digest of a trained model.

    Raises:
        RegistryError: It is not what a completed training made.
    """
    query = (
        select(ArtifactRow, RunRow)
        .join(RunArtifactRow, col(RunArtifactRow.artifact_id) == col(ArtifactRow.id))
        .join(RunRow, col(RunRow.id) == col(RunArtifactRow.run_id))
        .where(col(ArtifactRow.id) == artifact_id, col(RunArtifactRow.direction) == "output")
    )
    found = session.execute(query).first()
    if found is None or found[0].kind != "training_workspace":
        raise RegistryError(
            f"{artifact_id} is no trained model. List them with: chapkit-flows artifacts list --kind training_workspace"
        )
    artifact, run = found
    if artifact.status != "ok" or run.status != "completed":
        raise RegistryError(f"{artifact_id} is what a training left that is {run.status}; it cannot be registered.")
    return run.model, artifact.digest


def _head(model: str, alias: str) -> Select[tuple[AssignmentRow]]:
    return (
        select(AssignmentRow)
        .where(col(AssignmentRow.model) == model, col(AssignmentRow.alias) == alias)
        .order_by(col(AssignmentRow.sequence).desc())
        .limit(1)
    )


def _numbered(model: str, number: int) -> Select[tuple[ModelVersionRow]]:
    return select(ModelVersionRow).where(col(ModelVersionRow.model) == model, col(ModelVersionRow.number) == number)


def _version_of(artifact_id: str) -> Select[tuple[ModelVersionRow]]:
    return select(ModelVersionRow).where(col(ModelVersionRow.artifact_id) == artifact_id)


def _listing(model: str | None) -> str:
    return f"List the versions with: chapkit-flows models list{f' --model {model}' if model else ''}"


def _version_text(number: int | None) -> str:
    return "nothing" if number is None else f"version {number}"


def _since(holder: Assignment | None) -> str:
    return f", since {holder.moment:%Y-%m-%d %H:%M} UTC by {holder.actor}: {holder.reason}" if holder else ""


def _to_version(row: ModelVersionRow) -> ModelVersion:
    return ModelVersion(**{item.name: getattr(row, item.name) for item in fields(ModelVersion)})


def _to_assignment(row: AssignmentRow) -> Assignment:
    return Assignment(**{item.name: getattr(row, item.name) for item in fields(Assignment)})
