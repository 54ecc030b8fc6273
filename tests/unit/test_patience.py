"""How long a command waits for whoever holds the data directory."""

from __future__ import annotations

from seline.cli.patience import (
    HOLDER_WAIT_S,
    SAYS_AFTER_S,
    SERVER_WAIT_S,
    WAIT_S_MAX,
    Patience,
)
from seline.server.serving import CLOSE_S, SHUTDOWN_S

BOT = {"pid": 7, "serves_commands": False}
OTHER_BOT = {"pid": 8, "serves_commands": False}
SERVER = {"pid": 9, "serves_commands": True}
OF_AN_OLDER_SELINE = {"pid": 10}


def test_a_holder_without_a_door_is_waited_for_a_short_time() -> None:
    for holder in (BOT, OF_AN_OLDER_SELINE):
        patience = Patience()
        patience.sees(holder, now_s=100)

        assert not patience.is_over(now_s=100 + HOLDER_WAIT_S)
        assert patience.is_over(now_s=100.1 + HOLDER_WAIT_S)


def test_a_holder_that_opens_or_stops_or_has_said_nothing_yet_is_waited_for_longer() -> None:
    for holder in (SERVER, {}):
        patience = Patience()
        patience.sees(holder, now_s=100)

        assert not patience.is_over(now_s=100 + SERVER_WAIT_S)
        assert patience.is_over(now_s=100.1 + SERVER_WAIT_S)


def test_a_server_has_the_time_that_it_takes_to_stop() -> None:
    assert SERVER_WAIT_S > 2 * (SHUTDOWN_S + CLOSE_S)


def test_each_holder_is_waited_for_anew() -> None:
    patience = Patience()
    for number in range(10):
        now_s = number * HOLDER_WAIT_S
        patience.sees([BOT, OTHER_BOT][number % 2], now_s=now_s)

        assert not patience.is_over(now_s=now_s + HOLDER_WAIT_S)


def test_looking_again_at_the_same_holder_gives_it_no_more_time() -> None:
    patience = Patience()

    seen = [patience.sees(dict(BOT), now_s=now_s) for now_s in (0, 2, HOLDER_WAIT_S)]

    assert seen == [False, True, True]
    assert patience.is_over(now_s=HOLDER_WAIT_S + 0.1)


def test_holders_that_follow_one_another_without_end_are_not_waited_for_without_end() -> None:
    patience = Patience()
    for number in range(100):
        patience.sees({"pid": number, "serves_commands": True}, now_s=number * 2.0)

    assert WAIT_S_MAX < 100 * 2.0
    assert patience.is_over(now_s=99 * 2.0)


def test_a_wait_that_lasts_is_told_once() -> None:
    patience = Patience()
    looks = [0.0, SAYS_AFTER_S, SAYS_AFTER_S + 0.1, SAYS_AFTER_S + 0.2]

    told = []
    for now_s in looks:
        patience.sees(BOT, now_s=now_s)
        told.append(patience.is_tried(now_s=now_s))

    assert told == [False, False, True, False]
