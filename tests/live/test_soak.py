"""benchmarks/soak_report.py: an event that moved, is lost or is one too many is seen, in whatever loop."""

from benchmarks.soak_report import compare, place

PLAN = {
    "lengths": [40.0, 60.0], "events": [[[20, 22], [38, 39]], [[20, 25], [30, 33]]], "false_alarms": [], "loops": 2,
}  # fmt: skip


def heard(source, *starts):
    lengths = {20: 2, 60: 5, 70: 3}  # of events, by their place in a loop
    return [{"source": source, "start": s, "end": s + lengths.get(round(s) % 100, 1)} for s in starts]


def test_events_are_compared_loop_by_loop():
    loops = [100 * loop + second for loop in range(4) for second in (20, 60, 70)]
    assert place(161.0, PLAN["lengths"]) == (1, 21.0, 1)
    endless = heard("source 1", *loops, 420)
    hangs_up = heard("source 2", *loops[:6], *loops[:6], 20)
    counts = compare([event for pair in zip(endless, hangs_up, strict=True) for event in pair], PLAN)
    assert counts == {"loops": 8, "same": 24, "moved": 0, "lost": 0, "more": 0, "taught": 0, "of": 0}
    del endless[1]  # the second event is lost, the third begins late, and there is one more
    endless[1]["start"] += 2
    endless[2:2] = heard("source 1", 82)
    counts = compare(endless, PLAN)
    assert counts == {"loops": 4, "same": 10, "moved": 1, "lost": 1, "more": 1, "taught": 0, "of": 0}
    assert compare(endless, PLAN | {"false_alarms": [1]}) == {
        "loops": 4, "same": 4, "moved": 0, "lost": 0, "more": 0, "taught": 8, "of": 8,
    }  # fmt: skip
