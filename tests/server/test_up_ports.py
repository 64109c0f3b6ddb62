"""Ports for processes that are started on this machine."""

import socket
import subprocess
import sys

import pytest

from picker.server.up.ports import BLOCK, HOST, free_ports, free_run

ASKING = "from picker.server.up.ports import free_ports; print(*free_ports(200)); input()"


def test_ports_are_distinct_and_can_be_listened_on() -> None:
    ports = free_ports(400)
    assert len(set(ports)) == 400
    for port in ports:
        with socket.socket() as listener:
            listener.bind((HOST, port))


def test_a_run_is_consecutive_and_leaves_out_what_is_in_use() -> None:
    first = free_run(3)
    with socket.socket() as listener:
        listener.bind((HOST, first + 4))
        second = free_run(3)
    assert not {first + 4, *range(first, first + 3)} & set(range(second, second + 3))


def test_processes_that_look_for_ports_side_by_side_are_never_given_the_same() -> None:
    asked = [subprocess.Popen([sys.executable, "-c", ASKING], stdin=-1, stdout=-1, text=True) for _ in range(6)]
    given = [port for each in asked if each.stdout is not None for port in each.stdout.readline().split()]
    for each in asked:
        each.communicate("\n")
    assert len(given) == len(set(given)) == 6 * 200


def test_more_than_a_block_in_a_row_are_too_many() -> None:
    with pytest.raises(OSError, match="in a row"):
        free_run(BLOCK)
