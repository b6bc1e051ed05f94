"""Keys, generators, and Philox itself by its published vectors."""

import copy
import json
import pickle
import threading

import numpy as np
import pytest
from reference import philox

from gencore import _core
from gencore.random import Generator, Key, as_key

LARGEST = 2**64 - 1

# Random123's known answers for philox4x32-10: key, counter, output.
KNOWN_ANSWERS = (
    (0, (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (LARGEST, (2**32 - 1,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        0x299F31D0A4093822,
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


@pytest.mark.parametrize(("key", "counter", "expected"), KNOWN_ANSWERS)
def test_philox_known_answers(key, counter, expected):
    assert tuple(_core.philox(key, list(counter))) == expected
    assert tuple(map(int, philox.block(key, *counter))) == expected


# --- keys ---------------------------------------------------------------------------------------------------


def test_key_is_a_number():
    key = Key(7)
    assert int(key) == key.value == 7
    assert [*range(10)][key] == 7  # operator.index
    assert key == Key(np.uint64(7))
    assert key != Key(8)
    assert key != 7
    assert len({key, Key(7), Key(8)}) == 2
    assert repr(key) == "Key(7)"
    assert eval(repr(Key(LARGEST))) == Key(LARGEST)
    assert pickle.loads(pickle.dumps(key)) == key


def test_key_is_immutable():
    with pytest.raises(AttributeError):
        Key(1).value = 2


@pytest.mark.parametrize("make", [Key, as_key, Generator])
@pytest.mark.parametrize("number", [-1, 2**64, np.int64(-5)])
def test_numbers_out_of_range(make, number):
    with pytest.raises(ValueError, match=rf"from 0 to 2\^64 - 1, received {int(number)}$"):
        make(number)


@pytest.mark.parametrize("make", [Key, as_key, Generator])
@pytest.mark.parametrize("thing", [1.0, "1", None, True, np.float32(1), [1]])
def test_what_is_no_integer(make, thing):
    with pytest.raises(TypeError, match=r"expected .* integer.*, received "):
        make(thing)


@pytest.mark.parametrize("number", [0, 1, LARGEST])
def test_as_key_of_numbers(number):
    assert as_key(number) == as_key(Key(number)) == as_key(np.uint64(number)) == number
    assert type(as_key(np.uint64(number))) is int


def test_as_key_of_a_generator_is_its_next_key():
    ours, twin = Generator(3), Generator(3)
    assert [as_key(ours), as_key(ours)] == [int(twin.key()), int(twin.key())]


# --- generators ---------------------------------------------------------------------------------------------


def test_keys_are_philox_of_seed_and_count():
    """The format: key i of a seed is words 0 and 1 of block (i, 0, 0, 255 << 24), a child's seed that of 254."""
    seed = 0x0123456789ABCDEF
    generator = Generator(seed)

    def words(domain, i):
        low, high = philox.block(seed, i, 0, 0, domain << 24)[:2]
        return int(low) | int(high) << 32

    assert [int(generator.key()) for _ in range(3)] == [words(255, i) for i in range(3)]
    assert [child.state["seed"] for child in generator.spawn(2)] == [words(254, i) for i in range(2)]
    generator.state = {**generator.state, "count": 2**32 + 1}
    low, high = philox.block(seed, 1, 1, 0, 255 << 24)[:2]
    assert int(generator.key()) == int(low) | int(high) << 32


def test_equal_seeds_give_equal_keys_and_others_do_not():
    keys = [{int(g.key()) for _ in range(1000)} for g in (Generator(0), Generator(0), Generator(1))]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 1000
    assert not keys[0] & keys[2]


def test_children_are_new_each_time_and_do_not_disturb_the_parent():
    parent, alone = Generator(5), Generator(5)
    family = [*parent.spawn(3), *parent.spawn(2)]
    assert [parent.key() for _ in range(4)] == [alone.key() for _ in range(4)]
    grandchildren = family[0].spawn(2)
    keys = [g.key() for g in (parent, *family, *grandchildren)]
    assert len(set(keys)) == len(keys)
    assert alone.spawn(5)[4].key() == keys[5]
    assert parent.spawn(0) == []


def test_bits_of_keys_are_fair_and_independent():
    """Of 64 generators' first 256 keys, every bit is on half the time, and no two bits go together."""
    keys = np.array([int(g.key()) for g in Generator(9).spawn(64) for _ in range(256)], dtype=np.uint64)
    bits = ((keys[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).astype(np.float64) * 2 - 1
    n = len(keys)
    products = bits.T @ bits / n
    assert np.abs(bits.mean(axis=0)).max() < 6 / np.sqrt(n)  # 64 sums: chance 1e-7
    assert np.abs(products - np.eye(64)).max() < 6.5 / np.sqrt(n)  # 2,016 products


def test_state_goes_through_json_and_back():
    generator = Generator(LARGEST)
    generator.key()
    generator.spawn(4)
    saved = json.loads(json.dumps(generator.state))
    assert saved == {"seed": LARGEST, "count": 1, "spawned": 4}
    restored = Generator()
    restored.state = saved
    assert restored.spawn(1)[0].key() == generator.spawn(1)[0].key()
    assert [restored.key() for _ in range(3)] == [generator.key() for _ in range(3)]


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
def test_copies_go_their_own_way(clone):
    generator = Generator(11)
    generator.key()
    twin = clone(generator)
    first = generator.key()
    assert generator.state["count"] == 2
    assert twin.state["count"] == 1
    assert twin.key() == first


def test_repr_tells_where_it_is():
    generator = Generator(3)
    generator.key()
    assert repr(generator) == "Generator(seed=3) after 1 keys and 0 children"


@pytest.mark.parametrize(
    "state",
    [None, 3, {}, {"seed": 1, "count": 0}, {"seed": 1, "count": 0, "spawned": 0, "more": 1}],
)
def test_states_of_the_wrong_form(state):
    with pytest.raises(ValueError, match=r"generator's state .*received"):
        Generator().state = state


def test_states_of_wrong_numbers():
    with pytest.raises(ValueError, match=r"state\['count'\] .* received -1"):
        Generator().state = {"seed": 1, "count": -1, "spawned": 0}
    with pytest.raises(TypeError, match=r"state\['seed'\].* received 'x'"):
        Generator().state = {"seed": "x", "count": 0, "spawned": 0}
    with pytest.raises(ValueError, match=r"expected n .* received -1"):
        Generator().spawn(-1)


def test_threads_never_get_the_same_key():
    generator = Generator(1)
    keys = [[] for _ in range(8)]
    threads = [
        threading.Thread(target=lambda mine=mine: mine.extend(generator.key() for _ in range(500)))
        for mine in keys
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key for mine in keys for key in mine}) == 8 * 500
