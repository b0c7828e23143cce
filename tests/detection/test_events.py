"""From windows to events: one siren is one event, with the siren's start and end."""

from itertools import groupby, pairwise

import numpy as np
import pytest

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.audio.windows import ScoredWindow
from danger_safe.detection.events import EventConfig, EventFinder
from danger_safe.detection.onset import BAND_EDGES_HZ, band_levels, first_clear_onset, frames_per_hop, onset_near
from danger_safe.detection.scorer import Smoother

HOP = 0.5


def found_in(windows, threshold=0.5, hop=HOP, smooths=True, **settings):
    """Return the events of windows given as (start, end, raw score, embedding, levels or None)."""
    finder, smoother, found = EventFinder(EventConfig(threshold, **settings), hop), Smoother(hop), []
    for start, end, score, embedding, levels in windows:
        smoothed = smoother.add(start, score) if smooths else score
        found += finder.add(ScoredWindow(start, end, score, smoothed, np.array(embedding), band_levels=levels))
    return [*found, *finder.finish()]


def events(scores, hop=1.0, **settings):
    """Return (start, end, score, number of the window at the peak) of each event; embeddings follow the scores."""
    windows = [
        (number * hop, number * hop + 3.0, score, [score, max(0, 1 - score), 1e-6 * number], None)
        for number, score in enumerate(scores)
    ]
    found = found_in(windows, hop=hop, smooths=False, **settings)
    return [(event.start, event.end, event.score, round(event.embedding[2] * 1e6)) for event in found]


def test_events():
    assert events([0.1] * 9) == []
    ((start, end, score, peak),) = events([0.1, 0.1, 0.6, 0.7, 0.9, 0.4, 0.1, 0.1])
    assert (score, peak) == (0.9, 4) and 3 <= start <= 4 and 5 <= end <= 6
    ((start, end, *_),) = events([0.1, 0.1, 0.6, 0.1, 0.1, 0.7, 0.1])  # a short gap
    assert 2 <= start <= 4 and 5 <= end <= 7
    assert len(events([0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.7, 0.1])) == 2
    assert events([0.6, 0.1, 0.1])[0][0] == 0.0  # from the start of the recording
    assert events([0.1, 0.1, 0.6])[0][1] == 5.0  # to the end of the recording
    ((start, end, *_),) = events([0.1, 0.1, 0.6, 0.1])  # a single window contains its event
    assert 2 <= start < end <= 5
    assert events([0.1, 0.6, 0.1, 0.1], min_duration_s=2.0) == []
    assert len(events([0.1] * 9 + [0.4, 0.9] * 500 + [0.1] * 9)) == 1
    assert len(events([0.9, 0.1, 0.1, 0.9, 0.1], hop=20.0)) == 2  # further apart than the context


def overlap_of(start, sound):
    """Of a window of three seconds, the share that such a sound, (start, end), is heard in."""
    return max(0, min(start + 3, sound[1]) - max(start, sound[0])) / 3


@pytest.mark.parametrize("overlap", [0.5, 1.0, 2.0, 3.0])  # seconds of siren in a window with a full score
def test_event_starts_and_ends_with_its_sound(overlap):
    siren = (10.0, 20.0)
    windows = []
    for start in np.arange(0, 30, HOP):
        held = overlap_of(start, siren)
        score = 0.05 + 0.9 * min(1, 3 * held / overlap)
        windows.append((start, start + 3, score, [held, 1 - held], None))
    (event,) = found_in(windows)
    assert abs(event.start - siren[0]) <= 1  # without its band_levels
    assert abs(event.end - siren[1]) <= 1


def test_danger_after_a_low_scoring_sound_is_a_separate_event():
    doubtful, siren = (5.0, 15.0), (15.0, 22.0)
    windows = []
    for start in np.arange(0, 30, HOP):
        first, second = overlap_of(start, doubtful), overlap_of(start, siren)
        score = 0.45 * min(1, 3 * first) + 0.5 * min(1, 3 * second)
        windows.append((start, start + 3, score, [first, second, 1 - first - second], None))
    before, event = found_in(windows, threshold=0.3)
    assert abs(event.start - siren[0]) <= 1 and abs(event.end - siren[1]) <= 1
    assert abs(before.start - doubtful[0]) <= 1 and before.end <= event.start
    assert (before.score, event.score) == (pytest.approx(0.45), pytest.approx(0.85, abs=1e-3))


@pytest.mark.parametrize("begins", [9.2, 10.0, 10.37])
@pytest.mark.parametrize("overlap", [0.3, 1.0, 1.5])  # seconds of siren in a window with half of the full score
def test_onset_is_refined_by_loudness(begins, overlap):
    siren = (begins, 20.0)
    event, *others = found(siren, 0.9, recording(siren), overlap)
    assert not others and abs(event.start - begins) <= 0.1


def test_onset_without_a_change_of_loudness_is_that_of_the_windows():
    (event,) = found((10.0, 20.0), 0.9, recording((0, 30)), 1.5)  # equally loud before and after
    assert abs(event.start - 10) <= 0.75


def test_second_danger_with_a_similar_score_is_the_same_event():
    dog, siren = (6.0, 16.0), (16.0, 24.0)
    samples = recording(siren)
    windows = []
    for start in np.arange(0, 30, HOP):
        score = 0.05 + 0.9 * min(1, 2 * max(overlap_of(start, dog), overlap_of(start, siren)))
        windows.append((start, start + 3, score, [score], levels(samples, start + 3)))
    (event,) = found_in(windows)
    assert abs(event.start - 6) <= 1 and abs(event.end - 24) <= 0.2


@pytest.mark.parametrize("begins", [0.4, 5.2])
@pytest.mark.parametrize("after", [1.3, 8.0])  # seconds until the end of the recording
def test_event_of_a_short_sound_is_short(begins, after):
    glass, seconds = (begins, begins + 1.0), begins + 1 + after
    samples = recording(glass)[: round(seconds * SAMPLE_RATE)]
    windows = []
    for start in np.arange(0, max(seconds - 3, 0) + HOP, HOP):
        end = min(start + 3, seconds)
        held = max(0, min(end, glass[1]) - max(start, glass[0]))
        new = (
            samples[: round(end * SAMPLE_RATE)]
            if start == 0
            else samples[round((start + 2.5) * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
        )
        frames = round(len(new) / SAMPLE_RATE / HOP * frames_per_hop(HOP))
        windows.append((start, end, 0.02 + 0.9 * min(1, 3 * held), [held], band_levels(new, frames)))
    (event,) = found_in(windows)
    assert abs(event.start - glass[0]) <= 0.3 and abs(event.end - glass[1]) <= 0.75


def random_track(rng):
    """Return (windows, hop): five kinds of random scores, their means, random band_levels or none. The last window may
    be short."""
    hop, length = ((0.5, 3.0), (0.5, 3.0), (0.1, 3.0), (1.0, 3.0), (3.0, 3.0), (0.5, 0.5))[rng.integers(6)]
    number = int(rng.integers(1, 40))
    bumps = np.zeros(number)
    for begin in rng.integers(number, size=3):
        bumps[begin : begin + rng.integers(1, 20)] += rng.random()
    raw = (
        rng.random(number), np.clip(np.cumsum(rng.normal(0, 0.15, number)) + 0.3, 0, 1),
        np.repeat(rng.random(number), 4)[:number], (rng.random(number) < 0.15) * rng.random(number),
        np.clip(bumps + rng.normal(0, 0.05, number), 0, 1),
    )[rng.integers(5)]  # fmt: skip
    end = (number - 1) * hop + length - (rng.random() * hop * 0.9 if number > 1 else 0)
    smoother, frames, spread = Smoother(hop), frames_per_hop(hop), rng.choice((0, 0, 0, 3, 10))
    windows = []
    for n, score in enumerate(raw):
        times, smoothed = (n * hop, min(n * hop + length, end)), smoother.add(n * hop, float(score))
        shape = (round(frames * length / hop) if n == 0 else frames, 4)
        levels = rng.normal(-50, spread, shape) if spread else None
        windows.append(ScoredWindow(*times, float(score), smoothed, np.array([n]), band_levels=levels))
    return windows, hop


def check_events(windows, hop, threshold):
    """Return the events of windows; assert that they are consistent."""
    finder, found, shown = EventFinder(EventConfig(threshold), hop), [], None
    for window in windows:
        if ended := finder.add(window):
            assert shown is not None and len(ended) == 1  # each ended event was shown as open
            found, shown = found + ended, None
        if shown is None and (shown := finder.open_event):
            assert shown.start <= shown.peak <= shown.end <= window.end
    found += finder.finish()
    highest = max(window.smoothed_score for window in windows)
    assert max((event.score for event in found), default=0) == (highest if highest >= threshold else 0)
    for event in found:
        assert 0 <= event.start <= event.peak <= event.end <= windows[-1].end and event.start < event.end
    assert all(before.end <= after.start for before, after in pairwise(found))
    for is_danger, run in groupby(windows, key=lambda w: w.smoothed_score >= threshold):
        first, *_, last = (*run,) * 2
        if is_danger:
            assert any(event.start <= last.end and event.end >= first.start for event in found)
    return found


def test_events_are_consistent_for_random_scores():
    for seed in range(1_000):
        windows, hop = random_track(np.random.default_rng(seed))
        surer = []
        for threshold in (0.8, 0.45, 0.1):
            found = check_events(windows, hop, threshold)
            for event in surer:  # a lower threshold loses no event
                assert any(event.start < other.end and other.start < event.end for other in found), (seed, threshold)
            surer = found


def test_memory_does_not_grow_with_an_event():
    finder, rng = EventFinder(EventConfig(0.3), HOP), np.random.default_rng(0)
    for number, score in enumerate(0.4 + 0.5 * rng.random(20_000)):
        assert finder.add(ScoredWindow(number * HOP, number * HOP + 3, score, score, np.zeros(1))) == []
        held = finder._open
        assert len(finder._recent) + len(held.head) + len(held.tail) + len(finder._maxima) < 100
    assert len(finder.finish()) == 1


def test_a_short_last_window_does_not_shift_events():
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


def recording(siren, seconds=30):
    """Return a quiet room (-60 dB) with a siren: float32, 32 kHz."""
    rng = np.random.default_rng(0)
    times = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    room = 0.001 * rng.standard_normal(len(times))
    room += (times >= siren[0]) * (times < siren[1]) * 0.2 * np.sign(np.sin(2 * np.pi * 700 * times))
    return room.astype(np.float32)


def levels(samples, end):
    return band_levels(samples[round((end - HOP) * SAMPLE_RATE) : round(end * SAMPLE_RATE)], frames_per_hop(HOP))


def found(siren, max_score, samples, overlap, **settings):
    """Return events of 3 s windows that have half of the highest score with ``overlap`` seconds of siren."""
    windows = []
    for start in np.arange(0, 27.5, HOP):
        held = min(1, overlap_of(start, siren) * 3 / (2 * overlap))
        windows.append((start, start + 3, 0.02 + max_score * held, [held, 1 - held], levels(samples, start + 3)))
    return found_in(windows, **settings)


def test_levels_are_in_decibels_of_full_scale():
    times = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    heard = band_levels(np.sin(2 * np.pi * 1_000 * times).astype(np.float32), 10)
    assert heard.shape == (10, len(BAND_EDGES_HZ) - 1)
    band = np.searchsorted(BAND_EDGES_HZ, 1_000) - 1
    assert heard[:, band] == pytest.approx(0, abs=1.5) and (heard.argmax(axis=1) == band).all()
    for silence in (np.zeros(16_000, np.float32), np.zeros(3, np.float32), np.zeros(0, np.float32)):
        assert (band_levels(silence, 10) == -90).all()
    assert np.isfinite(band_levels(np.ones(700, np.float32), 10)).all()  # 2 ms frames


def test_onset_without_enough_sound_is_unchanged():
    assert onset_near(np.zeros((10, 32)), 0.05, 0.3, 1.5) == pytest.approx(0.3)
    assert first_clear_onset(np.zeros((10, 32)), 0.05) is None
