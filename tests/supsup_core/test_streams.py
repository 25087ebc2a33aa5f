import numpy as np
import pytest

from supsup_core.streams import Role, stream

# The first two words of each role's stream, for seed 0 and the given index. A run's identity
# includes these words: if a word changes, every stored run changes.
FIRST_WORDS = {
    Role.WEIGHTS: ((0,), [0xE0142D5981F313BE, 0xD22AEAFAD1BFB762]),
    Role.SCORES: ((0, 0), [0xE6099139729BD4FD, 0x445749A1CD81412D]),
    Role.BATCHES: ((0, 0), [0xD942FF47B6A062ED, 0xEC3DB50ECB513585]),
    Role.PERMUTATION: ((0,), [0xDCBCDA3F5B9D96A2, 0x4CAD3ABA98656786]),
    Role.EVALUATION_ORDER: ((0,), [0x554E614FE1306E77, 0x8B4FDA316ABBC236]),
    Role.DISTRACTORS: ((0,), [0x208BECD55C3CFC19, 0xB121CA35FD258347]),
    Role.CUES: ((0, 0), [0x02C1ADC110EBD163, 0x261DD71FB7494A7A]),
    Role.CLASSES: ((), [0x2C8FF47D17179CF0, 0x8DEBF14BBA6CB8DC]),
    Role.AUGMENTATION: ((0, 0), [0x10E5092461184B2C, 0xDED9E547AA90EF20]),
    Role.SHUFFLES: ((0, 0), [0xDD0A480D4AAA1509, 0xD67FEE6552C378FA]),
    Role.TRANSFER: ((0,), [0x07CC125B35A7B8C2, 0x327A66C141DD0243]),
    Role.CONTEXTS: ((0, 0), [0x516855E22B7D35A9, 0x02D9A437B4F0C7EC]),
    Role.MAGNITUDES: ((0,), [0xF77555ED20F492BF, 0xC6E0C6383430E0A1]),
    Role.REDRAWS: ((0, 0, 0), [0x3357BDA2A4C7F862, 0xCCF36F5160EEFEB3]),
    Role.CANDIDATES: ((0, 0, 0), [0x4257C25ECE2B0114, 0x0A8F8B2302DB6E0E]),
}


def words(*name):
    return stream(*name).bit_generator.random_raw(2).tolist()


@pytest.mark.parametrize("role", Role)
def test_first_words_are_pinned(role):
    index, expected = FIRST_WORDS[role]
    assert words(0, role, *index) == expected


def test_one_name_gives_the_same_draws_again():
    assert words(3, Role.SCORES, 5, 1) == words(3, Role.SCORES, 5, 1)


def test_every_part_of_the_name_matters():
    names = [
        (seed, role, *index)
        for seed in range(4)
        for role in Role
        for index in [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]
    ]
    assert len({tuple(words(*name)) for name in names}) == len(names)


def test_next_task_of_one_seed_is_not_this_task_of_the_next():
    assert words(7, Role.PERMUTATION, 4) != words(8, Role.PERMUTATION, 3)


def test_streams_do_not_share_a_position():
    first, second = stream(0, Role.SCORES, 0, 0), stream(0, Role.SCORES, 0, 1)
    first.random(1000)
    assert np.array_equal(second.random(3), stream(0, Role.SCORES, 0, 1).random(3))


@pytest.mark.parametrize("name", [(-1, Role.WEIGHTS, 0), (0, Role.SCORES, 2, -1)])
def test_negative_seed_or_index_is_refused(name):
    with pytest.raises(ValueError, match=">= 0"):
        stream(*name)
