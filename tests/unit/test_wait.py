"""How long a command waits for the process that holds the data directory."""

from seline.client.wait import HOLDER_WAIT_S, NOTICE_AFTER_S, SERVER_WAIT_S, WAIT_S_MAX, Wait
from seline.server.listening import FINISH_S
from seline.server.serving import CLOSE_S

BOT = {"pid": 7, "serves_commands": False}
OTHER_BOT = {"pid": 8, "serves_commands": False}
SERVER = {"pid": 9, "serves_commands": True}
FROM_AN_OLDER_SELINE = {"pid": 10}


def test_the_wait_for_a_holder_that_serves_no_commands_is_short() -> None:
    for holder in (BOT, FROM_AN_OLDER_SELINE):
        wait = Wait()
        wait.observe(holder, now_s=100)

        assert not wait.is_over(now_s=100 + HOLDER_WAIT_S)
        assert wait.is_over(now_s=100.1 + HOLDER_WAIT_S)


def test_the_wait_for_a_server_or_for_an_unwritten_server_json_is_longer() -> None:
    for holder in (SERVER, {}):
        wait = Wait()
        wait.observe(holder, now_s=100)

        assert not wait.is_over(now_s=100 + SERVER_WAIT_S)
        assert wait.is_over(now_s=100.1 + SERVER_WAIT_S)


def test_the_wait_for_a_server_exceeds_the_time_of_its_stop() -> None:
    assert SERVER_WAIT_S > 2 * (FINISH_S + CLOSE_S)


def test_each_new_holder_restarts_the_wait() -> None:
    wait = Wait()
    for number in range(10):
        now_s = number * HOLDER_WAIT_S
        wait.observe([BOT, OTHER_BOT][number % 2], now_s=now_s)

        assert not wait.is_over(now_s=now_s + HOLDER_WAIT_S)


def test_the_same_holder_does_not_restart_the_wait() -> None:
    wait = Wait()

    same = [wait.observe(dict(BOT), now_s=now_s) for now_s in (0, 2, HOLDER_WAIT_S)]

    assert same == [False, True, True]
    assert wait.is_over(now_s=HOLDER_WAIT_S + 0.1)


def test_an_endless_sequence_of_holders_ends_the_wait_at_its_maximum() -> None:
    wait = Wait()
    for number in range(100):
        wait.observe({"pid": number, "serves_commands": True}, now_s=number * 2.0)

    assert WAIT_S_MAX < 100 * 2.0
    assert wait.is_over(now_s=99 * 2.0)


def test_a_long_wait_is_noticed_once() -> None:
    wait = Wait()
    due = []
    for now_s in (0.0, NOTICE_AFTER_S, NOTICE_AFTER_S + 0.1, NOTICE_AFTER_S + 0.2):
        wait.observe(BOT, now_s=now_s)
        due.append(wait.notice_is_due(now_s=now_s))

    assert due == [False, False, True, False]
