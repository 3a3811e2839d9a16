"""Which codecs there are: those of this package, and those that other packages register by entry point."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points

from netweight.codecs.base import Codec
from netweight.codecs.codebook import Codebook
from netweight.codecs.feedback import Feedback, FeedbackScalar
from netweight.codecs.relative import Relative
from netweight.codecs.sparse import Sparse
from netweight.codecs.surp import Surp
from netweight.codecs.trellis import Trellis
from netweight.codecs.uniform import Uniform
from netweight.errors import FormatError, UsageError

EXACT = "exact"
EXACT_VERSION = 1
GROUP = "netweight.codecs"
_OWN: tuple[type[Codec], ...] = (
    Trellis, Uniform, Relative, Codebook, Surp, Sparse, Feedback, FeedbackScalar,
)  # fmt: skip


@cache
def codecs() -> dict[str, Codec]:
    """All lossy codecs by id.

    Raises:
        UsageError: an installed package registers an id that exists, or something that is no codec.
    """
    found = {codec.id: codec() for codec in _OWN}
    for entry in entry_points(group=GROUP):
        loaded = entry.load()
        if not (isinstance(loaded, type) and issubclass(loaded, Codec)):
            raise UsageError(
                f"The entry point {entry.name!r} of {GROUP} is no codec.", "Repair or remove the package that has it."
            )
        if loaded.id in found or loaded.id == EXACT:
            raise UsageError(f"Two installed packages have a codec {loaded.id!r}.", "Remove one of them.")
        found[loaded.id] = loaded()
    return found


def choose(names: Sequence[str] | None) -> tuple[list[Codec], bool]:
    """Codecs by name, those that are tried by default if None, and whether `exact` is among them.

    One that refines takes what it can; named alone it brings the default ones along for the rest, such as vectors.

    Raises:
        UsageError: a name is unknown.
    """
    known = codecs()
    if names is None:
        return [codec for codec in known.values() if codec.default], True
    unknown = sorted(set(names) - {*known, EXACT})
    if unknown or not names:
        raise UsageError(
            f"There is no codec {', '.join(unknown) or 'in an empty list'}.",
            f"Known are: {', '.join([*known, EXACT])}.",
        )
    if all(name != EXACT and known[name].progressive for name in names):
        return [codec for codec in known.values() if codec.default or codec.id in names], True
    return [known[name] for name in known if name in names], EXACT in names


def by_id(name: str, version: int) -> Codec:
    """The codec that reads a section.

    Raises:
        FormatError: no installed codec has this id and version.
    """
    codec = codecs().get(name)
    if codec is None or codec.version != version:
        has = f"version {codec.version}" if codec else "none of that name"
        raise FormatError(
            f"The file needs the codec {name!r} version {version}, here is {has}.",
            "Upgrade netweight, or install the codec's package.",
        )
    return codec
