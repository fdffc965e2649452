"""Memory of batches is used again once nobody can see what is in it, and never before."""

from __future__ import annotations

import gc
import os
import pickle

from cavmae.data.memory import Memory, Slots


def address(memory: Memory) -> int:
    return memory.tensor.data_ptr()


def test_memory_that_nobody_holds_is_used_again():
    slots = Slots(0, 4096)
    first = slots.memory(4096)
    second = slots.memory(100)
    places = address(first), address(second)
    view = first.tensor[10:20]
    del first, second
    again = slots.memory(4096)
    assert address(again) == places[1]  # a view still holds the other
    del view
    assert address(slots.memory(4096)) == places[0]


def test_there_is_memory_when_all_slots_are_in_use_and_for_batches_too_large_for_them():
    slots = Slots(0, 64)
    many = [slots.memory(64) for _ in range(10)]
    assert len({address(memory) for memory in many}) == 10
    assert len(slots.memory(65).tensor) == 65


def test_memory_that_is_handed_over_is_in_use_until_the_receiver_lets_go_of_it():
    slots = Slots(0, 64)
    sent = slots.memory(60)
    place = address(sent)
    sent.tensor.fill_(7)
    message = pickle.dumps(sent)
    del sent
    assert address(slots.memory(64)) != place  # on its way
    received = pickle.loads(message)
    assert address(received) == place
    assert received.tensor.tolist() == [7] * 60
    del received
    assert address(slots.memory(64)) == place


def test_a_forked_process_frees_nothing_of_the_one_it_came_from():
    slots = Slots(0, 64)
    held = [slots.memory(64)]
    place = address(held[0])
    child = os.fork()
    if not child:
        held.clear()
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert address(slots.memory(64)) != place
