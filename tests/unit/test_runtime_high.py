"""Descriptors that make room for a library that can only wait for small ones."""

from __future__ import annotations

import os
import resource

from agent.runtime import high


def test_a_file_gets_a_large_number_and_leaves_its_small_one_free() -> None:
    before = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    after = high.moved(before)
    again = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert after >= 1024
        assert again == before
        assert not os.get_inheritable(after)
    finally:
        os.close(after)
        os.close(again)


def test_where_there_is_no_room_it_stays_as_it_is() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        assert high.moved(fd) == fd
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(fd)
