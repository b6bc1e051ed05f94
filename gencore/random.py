"""Keys and generators: where the randomness of a call comes from.

There is no global state. A kernel draws from a *key*, a 64-bit number: the variate at (step, row, unit) is a
pure function of the key and these coordinates (Philox4x32-10, ``csrc/include/gencore/random.h``), so the same
key gives the same numbers on any machine, with any number of threads and however a batch is split. A
`Generator` hands out keys, one after the other, for code that draws many times.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from gencore import _core

__all__ = ["Generator", "Key", "KeyLike", "as_key"]

_LIMIT = 1 << 64
# Domains of random.h in which a Generator's seed is the key: no variate is ever drawn from them.
_CHILD_DOMAIN = 254
_KEY_DOMAIN = 255


def _integer(name: str, value: Any, kinds: str = "an integer") -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"expected {name} to be {kinds}, received {value!r}")
    if not 0 <= number < _LIMIT:
        raise ValueError(f"expected {name} from 0 to 2^64 - 1, received {number}")
    return number


@dataclass(frozen=True, slots=True)
class Key:
    """A 64-bit number that names a stream of random variates. Immutable.

    Parameters
    ----------
    value : int
        From 0 to 2^64 - 1. Any two different values give independent streams; small integers are as good as
        large ones.

    Raises
    ------
    TypeError, ValueError
        `value` is not an integer, or not in range.

    Examples
    --------
    >>> int(Key(7))
    7
    >>> Key(7) == Key(7)
    True
    """

    value: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _integer("a key", self.value))

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f"Key({self.value})"


class Generator:
    """Hands out keys, one after the other.

    Key number i is a Philox block of (seed; i), so a generator is two counters and a seed: cheap to save, to
    copy and to restore. Two generators of different seeds, and a generator and its children, give independent
    keys. May be used by several threads at once; each key is handed out once.

    Parameters
    ----------
    seed : int
        From 0 to 2^64 - 1.

    Raises
    ------
    TypeError, ValueError
        `seed` is not an integer, or not in range.

    Examples
    --------
    >>> a, b = Generator(1), Generator(1)
    >>> a.key() == b.key()
    True
    >>> a.key() == a.key()
    False
    """

    __slots__ = ("_count", "_lock", "_seed", "_spawned")

    def __init__(self, seed: int = 0) -> None:
        self._seed = _integer("seed", seed)
        self._count = 0
        self._spawned = 0
        self._lock = threading.Lock()

    def key(self) -> Key:
        """Return the next key; each call gives a new one."""
        with self._lock:
            number = self._count
            self._count += 1
        return Key(self._derive(_KEY_DOMAIN, number))

    def spawn(self, n: int) -> list[Generator]:
        """Return `n` new generators, independent of each other and of this one.

        The keys that this generator hands out are not changed by it.

        Parameters
        ----------
        n : int
            How many, at least 0.
        """
        n = _integer("n", n)
        with self._lock:
            first = self._spawned
            self._spawned += n
        return [Generator(self._derive(_CHILD_DOMAIN, first + i)) for i in range(n)]

    def _derive(self, domain: int, number: int) -> int:
        """64 bits of the Philox block of this seed that `domain` and `number` address."""
        low, high = number & 0xFFFFFFFF, number >> 32
        words = _core.philox(self._seed, [low, high, 0, domain << 24])
        return int(words[0]) | int(words[1]) << 32

    @property
    def state(self) -> dict[str, int]:
        """All that the generator is, for JSON: its "seed", "count" of keys, and "spawned" children.

        Assign it to go on from there: ``generator.state = saved`` continues as the saved one would have.
        """
        with self._lock:
            return {"seed": self._seed, "count": self._count, "spawned": self._spawned}

    @state.setter
    def state(self, state: Mapping[str, int]) -> None:
        names = ("seed", "count", "spawned")
        if not isinstance(state, Mapping) or set(state) != set(names):
            raise ValueError(f"expected a generator's state to be a mapping of {names}, received {state!r}")
        seed, count, spawned = (_integer(f"state[{name!r}]", state[name]) for name in names)
        with self._lock:
            self._seed, self._count, self._spawned = seed, count, spawned

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (self.state,)

    def __repr__(self) -> str:
        s = self.state
        return f"Generator(seed={s['seed']}) after {s['count']} keys and {s['spawned']} children"


def _restore(state: dict[str, int]) -> Generator:
    generator = Generator()
    generator.state = state
    return generator


KeyLike: TypeAlias = Key | int | Generator


def as_key(key: KeyLike) -> int:
    """Return the number behind a `Key` or an integer; from a `Generator`, its next key.

    Every kernel that draws passes its `key` argument through here: with a key the call can be repeated, with
    a generator each call draws anew.

    Parameters
    ----------
    key : Key, int or Generator
        An integer (NumPy's too) from 0 to 2^64 - 1, a Key, or a Generator.

    Returns
    -------
    int
        From 0 to 2^64 - 1.

    Raises
    ------
    TypeError, ValueError
        `key` is of another kind, or not in range.
    """
    if isinstance(key, Generator):
        return int(key.key())
    return _integer("key", key, "a Key, an integer or a Generator")
