from sth_broker.topic_cursor import CONFIRMED_AFTER, LINGER, PlainCursor


def test_cursor_first_reader_begins_at_the_oldest() -> None:
    assert PlainCursor().join().start == 0


def test_cursor_reader_beside_another_begins_at_the_highest_handed() -> None:
    cursor = PlainCursor()
    first = cursor.join()
    cursor.hand(first, 10, now=0.0)
    assert cursor.join().start == 10


def test_cursor_tail_of_a_broken_reader_is_given_again() -> None:
    cursor = PlainCursor()
    reader = cursor.join()
    cursor.hand(reader, 10, now=0.0)
    cursor.hand(reader, 20, now=5.0)
    cursor.settle(now=5.5)
    cursor.leave(reader, now=5.5)
    assert cursor.join().start == 10


def test_cursor_what_was_handed_long_enough_ago_is_not_given_again() -> None:
    cursor = PlainCursor()
    reader = cursor.join()
    cursor.hand(reader, 10, now=0.0)
    cursor.settle_reader(reader, now=CONFIRMED_AFTER)
    cursor.leave(reader, now=CONFIRMED_AFTER)
    assert cursor.join().start == 10


def test_cursor_acknowledged_reader_confirms_by_itself_only() -> None:
    cursor = PlainCursor()
    reader = cursor.join()
    cursor.hand(reader, 10, now=0.0, acknowledged=True)
    cursor.settle(now=100.0)
    assert cursor.resume == 0
    cursor.confirm(reader, 7)
    assert cursor.resume == 7
    cursor.leave(reader, now=100.0)
    assert cursor.join().start == 7


def test_cursor_slowest_of_those_present_counts() -> None:
    cursor = PlainCursor()
    slow, fast = cursor.join(), cursor.join()
    cursor.confirm(fast, 100)
    cursor.confirm(slow, 5)
    assert cursor.resume == 5


def test_cursor_readers_that_leave_together_are_all_the_last_ones() -> None:
    cursor = PlainCursor()
    slow, fast = cursor.join(), cursor.join()
    cursor.confirm(slow, 5)
    cursor.confirm(fast, 100)
    cursor.leave(slow, now=10.0)
    cursor.leave(fast, now=10.0 + LINGER)
    assert cursor.join().start == 5


def test_cursor_reader_that_left_long_before_is_not_among_the_last_ones() -> None:
    cursor = PlainCursor()
    slow, fast = cursor.join(), cursor.join()
    cursor.confirm(slow, 5)
    cursor.confirm(fast, 100)
    cursor.leave(slow, now=10.0)
    cursor.leave(fast, now=10.1 + LINGER)
    assert cursor.join().start == 100


def test_cursor_leaving_twice_is_harmless() -> None:
    cursor = PlainCursor()
    reader = cursor.join()
    cursor.confirm(reader, 3)
    cursor.leave(reader, now=0.0)
    cursor.leave(reader, now=9.0)
    assert (cursor.present, cursor.resume) == (0, 3)


def test_cursor_skips_what_is_gone() -> None:
    cursor = PlainCursor(cursor=10, resume=5)
    cursor.skip_to(8)
    assert (cursor.cursor, cursor.join().start) == (10, 8)
