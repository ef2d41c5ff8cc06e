"""Which object a person means: a whole id, a name, or the beginning of either. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from sth_protocol.errors import Conflict, NotFound

SHORTEST = 8
_SHOWN_MATCHES = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """`name` may be empty, and may be that of several: then the only `preferred` one is meant."""

    id: str
    name: str = ""
    preferred: bool = False


def choose(reference: str, candidates: Iterable[Candidate], *, what: str, list_with: str) -> str:
    """The id of the one meant. `what`: its kind, `list_with`: the command that lists them, both for
    messages. NotFound if none fits, Conflict if several do."""
    known = list(candidates)
    steps = (
        [each for each in known if each.id == reference],
        [each for each in known if each.name == reference],
        [each for each in known if _begins(each, reference)],
    )
    for matches in steps:
        if len(matches) == 1:
            return matches[0].id
        preferred = [each for each in matches if each.preferred and each.name == reference]
        if len(preferred) == 1:
            return preferred[0].id
        if matches:
            raise Conflict(
                f"'{reference}' is the beginning or the name of {len(matches)} {what}s",
                hint=f"say which: {_listed(matches)}",
            )
    raise NotFound(f"there is no {what} '{reference}'", hint=_hint(reference, known, list_with))


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """The shortest beginning of each id that is its own among them, of at least 8 characters."""
    ordered = sorted(set(ids))
    short: dict[str, str] = {}
    for index, each in enumerate(ordered):
        neighbours = ordered[max(0, index - 1) : index] + ordered[index + 1 : index + 2]
        shared = max((_shared_length(each, other) for other in neighbours), default=0)
        short[each] = each[: max(SHORTEST, shared + 1)]
    return short


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word that is meant, empty if none is near."""
    # Imported here: only mistakes need it.
    import difflib

    near = difflib.get_close_matches(word, sorted(known), n=1)
    return near[0] if near else ""


def _begins(candidate: Candidate, reference: str) -> bool:
    return bool(reference) and (
        candidate.id.startswith(reference) or candidate.name.startswith(reference)
    )


def _listed(matches: list[Candidate]) -> str:
    short = short_ids(each.id for each in matches)
    shown = [f"{short[each.id]} ({each.name})" if each.name else short[each.id] for each in matches]
    more = len(shown) - _SHOWN_MATCHES
    return ", ".join(shown[:_SHOWN_MATCHES]) + (f" and {more} more" if more > 0 else "")


def _hint(reference: str, known: list[Candidate], list_with: str) -> str:
    near = did_you_mean(reference, {each.name or each.id for each in known})
    return f"did you mean {near}?" if near else f"`{list_with}` shows what there is"


def _shared_length(one: str, other: str) -> int:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))
