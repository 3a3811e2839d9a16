"""Names of one network in two places: as they are, or with one prefix more or less."""

from collections.abc import Iterable

__all__ = ["pair_names"]


def pair_names(here: Iterable[str], there: Iterable[str]) -> dict[str, str]:
    """Give the name there of each name here that has one.

    If no name is the same, the one prefix that ends with a point and pairs most names is added or removed.

    >>> pair_names(["bert.w", "bert.b", "head"], ["w", "b"])
    {'bert.w': 'w', 'bert.b': 'b'}
    >>> pair_names(["w"], ["model.w", "model.b"])
    {'w': 'model.w'}
    """
    ours, theirs = list(here), list(there)
    known = set(theirs)
    same = {name: name for name in ours if name in known}
    if same:
        return same
    shorter = _prefixed(ours, known)
    longer = _prefixed(theirs, set(ours))
    return shorter if len(shorter) >= len(longer) else {short: long for long, short in longer.items()}


def _prefixed(long: list[str], short: set[str]) -> dict[str, str]:
    """Long name to short name, under the prefix that serves most."""
    found: dict[str, dict[str, str]] = {}
    for name in long:
        for at in (at for at, letter in enumerate(name) if letter == "."):
            if name[at + 1 :] in short:
                found.setdefault(name[: at + 1], {})[name] = name[at + 1 :]
    return max(found.values(), key=len, default={})
