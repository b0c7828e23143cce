"""From windows to events: one siren is one event, and begins where it is heard to begin."""

import numpy as np
import pytest

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.detection.events import EventFinder, Scored
from danger_safe.detection.onset import BANDS, frames_in, loudness, onset

HOP = 0.5


def found_in(windows, threshold=0.5, hop=HOP, **settings):
    """The events of (start, end, score, embedding, levels or None) of windows."""
    finder, found = EventFinder(threshold, hop, **settings), []
    for start, end, score, embedding, levels in windows:
        found += finder.add(Scored(start, end, score, score, np.array(embedding), levels=levels))
    return [*found, *finder.finish()]


def events(scores, hop=1.0, **settings):
    """(start, end, score, number of the window at the peak) of each event; a window's sound is as near as its score."""
    windows = [
        (number * hop, number * hop + 3.0, score, [score, max(0, 1 - score), 1e-6 * number], None)
        for number, score in enumerate(scores)
    ]
    found = found_in(windows, hop=hop, **settings)
    return [(event.start, event.end, event.score, round(event.embedding[2] * 1e6)) for event in found]


def test_events():
    assert events([0.1] * 9) == []
    ((start, end, score, peak),) = events([0.1, 0.1, 0.6, 0.7, 0.9, 0.4, 0.1, 0.1])
    assert (score, peak) == (0.9, 4) and 3 <= start <= 4 and end == 5.0
    ((start, end, *_),) = events([0.1, 0.1, 0.6, 0.1, 0.1, 0.7, 0.1])  # a short gap
    assert 2 <= start <= 4 and 5 <= end <= 7
    assert len(events([0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.7, 0.1])) == 2
    assert events([0.6, 0.1, 0.1])[0][0] == 0.0  # from the beginning
    assert events([0.1, 0.1, 0.6])[0][1] == 5.0  # to the end
    ((start, end, *_),) = events([0.1, 0.1, 0.6, 0.1])  # one window: within it
    assert 2 <= start < end <= 5
    assert events([0.1, 0.6, 0.1, 0.1], shortest=2.0) == []
    assert len(events([0.1] * 9 + [0.4, 0.9] * 500 + [0.1] * 9)) == 1
    assert len(events([0.9, 0.1, 0.1, 0.9, 0.1], hop=20.0)) == 2  # further apart than what is looked back on


def share(start, sound):
    """Of a window of three seconds, the share that such a sound, (start, end), is heard in."""
    return max(0, min(start + 3, sound[1]) - max(start, sound[0])) / 3


@pytest.mark.parametrize("overlap", [0.5, 1.0, 2.0, 3.0])  # seconds of siren in a window that is sure of it
def test_an_event_begins_and_ends_with_its_sound(overlap):
    siren = (10.0, 20.0)
    windows = []
    for start in np.arange(0, 30, HOP):
        held = share(start, siren)
        score = 0.05 + 0.9 * min(1, 3 * held / overlap)
        windows.append((start, start + 3, score, [held, 1 - held], None))
    (event,) = found_in(windows)
    assert abs(event.start - siren[0]) <= 0.75
    assert abs(event.end - siren[1]) <= 0.5


def test_a_danger_after_a_doubtful_sound_is_an_event_of_its_own():
    doubtful, siren = (5.0, 15.0), (15.0, 22.0)
    windows = []
    for start in np.arange(0, 30, HOP):
        first, second = share(start, doubtful), share(start, siren)
        score = 0.6 * first + 0.95 * second
        windows.append((start, start + 3, score, [first, second, 1 - first - second], None))
    before, event = found_in(windows)
    assert abs(event.start - siren[0]) <= 0.75 and abs(event.end - siren[1]) <= 1
    assert abs(before.start - doubtful[0]) <= 1 and before.end <= siren[0]


@pytest.mark.parametrize("begins", [9.2, 10.0, 10.37])
@pytest.mark.parametrize("overlap", [0.3, 1.0, 1.5])  # seconds of siren in a window that is half turned to it
def test_where_a_sound_sets_in_is_heard_in_its_loudness(begins, overlap):
    siren = (begins, 20.0)
    event, *others = found(siren, 0.9, recording(siren), overlap)
    assert not others and abs(event.start - begins) <= 0.1


def test_a_sound_that_does_not_set_in_begins_where_the_windows_say():
    (event,) = found((10.0, 20.0), 0.9, recording((0, 30)), 1.5)  # as loud before as after
    assert abs(event.start - 10) <= 0.75


@pytest.mark.parametrize(("rises", "events"), [(True, 2), (False, 1)])
def test_a_second_danger_that_is_heard_to_set_in_is_an_event_of_its_own(rises, events):
    dog, siren = (6.0, 16.0), (16.0, 24.0)
    samples = recording(siren) if rises else recording((0, 30))
    windows = []
    for start in np.arange(0, 30, HOP):
        first, second = share(start, dog), share(start, siren)
        score = 0.05 + 0.9 * min(1, 2 * max(first, second))  # as sure of one as of the other
        windows.append((start, start + 3, score, [first, second, 1 - first - second], levels(samples, start + 3)))
    heard = found_in(windows)
    assert len(heard) == events
    if rises:
        assert heard[0].end <= 16 and abs(heard[1].start - 16) <= 0.1


def test_the_last_short_window_does_not_shift_what_is_heard():
    siren = (6.1, 8.3)
    samples = recording(siren)[: round(8.3 * SAMPLE_RATE)]
    windows = []
    for start in np.arange(0, 6, HOP):
        end = min(start + 3, 8.3)
        held = max(0, end - max(start, siren[0])) / 3
        score = 0.05 + 0.9 * min(1, 2 * held)
        windows.append((start, end, score, [held, 1 - held], levels(samples, end)))
    (event,) = found_in(windows)
    assert abs(event.start - siren[0]) <= 0.1 and event.end == 8.3


def test_finders_of_one_recording_may_share_what_they_find_out():
    siren = (10.0, 20.0)
    shared = {}
    for threshold in (0.3, 0.9, 0.5):
        alone = found(siren, 0.9, recording(siren), 1.5, threshold=threshold)
        together = found(siren, 0.9, recording(siren), 1.5, threshold=threshold, beginnings=shared)
        assert [(e.start, e.end) for e in alone] == [(e.start, e.end) for e in together]
    assert shared


def recording(siren, seconds=30):
    """A quiet room, -60 dB, with a siren in it: float32, at 32 kHz."""
    rng = np.random.default_rng(0)
    times = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    room = 0.001 * rng.standard_normal(len(times))
    room += (times >= siren[0]) * (times < siren[1]) * 0.2 * np.sign(np.sin(2 * np.pi * 700 * times))
    return room.astype(np.float32)


def levels(samples, end):
    return loudness(samples[round((end - HOP) * SAMPLE_RATE) : round(end * SAMPLE_RATE)], frames_in(HOP))


def found(siren, surest, samples, overlap, **settings):
    """Events of windows of 3 s, whose embedding is half turned to the siren with so many seconds of it."""
    windows = []
    for start in np.arange(0, 27.5, HOP):
        held = min(1, share(start, siren) * 3 / (2 * overlap))
        windows.append((start, start + 3, 0.02 + surest * held, [held, 1 - held], levels(samples, start + 3)))
    return found_in(windows, **settings)


def test_loudness_is_in_decibels_of_full_scale():
    times = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    heard = loudness(np.sin(2 * np.pi * 1_000 * times).astype(np.float32), 10)
    assert heard.shape == (10, len(BANDS) - 1)
    band = np.searchsorted(BANDS, 1_000) - 1
    assert heard[:, band] == pytest.approx(0, abs=1.5) and (heard.argmax(axis=1) == band).all()
    for silence in (np.zeros(16_000, np.float32), np.zeros(3, np.float32), np.zeros(0, np.float32)):
        assert (loudness(silence, 10) == -90).all()
    assert np.isfinite(loudness(np.ones(700, np.float32), 10)).all()  # frames of 2 ms


def test_without_enough_sound_a_beginning_is_where_it_was_thought():
    assert onset(np.zeros((10, 32)), 0.05, 0.3) == (0.3, 0.0)
