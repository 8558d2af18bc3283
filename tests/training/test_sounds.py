"""Recordings are other ones in each epoch, by their place in training alone."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from graftwork.models.serving.config import SPECTROGRAM, SoundConfig
from graftwork.models.serving.sounds import SoundEncoder, SoundRow, log_mel
from graftwork.training.augmentation import row_generator
from graftwork.training.sounds import SoundChange, shifted

RATE = 16_000
WAVEFORM = SoundConfig(RATE, RATE)
PICTURED = SoundConfig(RATE, RATE, SPECTROGRAM, bins=64, frames=120, mean=-4.27, std=4.57)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Noise without a zero in it, so that blanks are seen."""
    return np.random.default_rng(1).uniform(0.1, 0.5, 8_000).astype(np.float32)


def row(samples: np.ndarray) -> SoundRow:
    stream = io.BytesIO()
    soundfile.write(stream, samples, RATE, format="WAV", subtype="FLOAT")
    return SoundRow(stream.getvalue(), 25)


def change(
    samples: np.ndarray,
    place: tuple[int, int, int] = (7, 0, 1),
    number: int = 0,
    sound: SoundConfig = WAVEFORM,
    **how: float,
) -> np.ndarray:
    changed = SoundChange(sound, **how)(number, row(samples), row_generator(place, number))
    assert len(changed) == 25
    return changed.values


def test_without_options_it_is_the_recording_that_is_predicted_on(samples: np.ndarray) -> None:
    assert (change(samples) == samples).all()
    assert (change(samples, sound=PICTURED) == log_mel(samples, PICTURED)).all()
    encoder = SoundEncoder(PICTURED)
    changed = SoundChange(PICTURED)(0, row(samples), row_generator((7, 0, 1), 0))
    assert (encoder.pad([changed], 25)[0] == encoder.pad([row(samples)], 25)[0]).all()


def test_the_draw_is_of_the_place_alone(samples: np.ndarray) -> None:
    """Another epoch, row, stage or seed draws another; the same one draws the same bits, whatever else is asked for."""
    how = {"noise": 0.3, "gain": 6.0, "shift": 0.2, "mask": 0.3}
    for sound in (WAVEFORM, PICTURED):
        same = change(samples, sound=sound, **how)
        assert same.tobytes() == change(samples, sound=sound, **how).tobytes()
        for place, number in (((7, 0, 2), 0), ((7, 1, 1), 0), ((8, 0, 1), 0), ((7, 0, 1), 1)):
            assert (same != change(samples, place, number, sound, **how)).any()
    blanked = [np.flatnonzero(change(samples, number=n, mask=0.3) == 0).tolist() for n in range(20)]
    also = [np.flatnonzero(change(samples, number=n, mask=0.3, gain=6.0) == 0).tolist() for n in range(20)]
    assert blanked == also


def test_noise_is_as_loud_as_it_may_be(samples: np.ndarray) -> None:
    """As a share of the recording's own level: evenly up to the largest, and white."""
    level = np.sqrt(np.mean(samples.astype(float) ** 2))
    added = [change(samples, number=n, noise=0.2) - samples for n in range(100)]
    shares = [np.sqrt(np.mean(noise.astype(float) ** 2)) / level for noise in added]
    assert min(shares) < 0.02 and 0.18 < max(shares) < 0.21 and 0.08 < np.mean(shares) < 0.12
    loudest = added[int(np.argmax(shares))]
    assert abs(np.corrcoef(loudest[1:], loudest[:-1])[0, 1]) < 0.05


def test_gain_is_in_decibels_either_way(samples: np.ndarray) -> None:
    factors = [change(samples, number=n, gain=6.0) / samples for n in range(100)]
    assert all(np.ptp(factor) < 1e-5 for factor in factors)
    decibels = [20 * np.log10(factor.mean()) for factor in factors]
    assert -6 <= min(decibels) < -5 and 5 < max(decibels) <= 6 and abs(np.mean(decibels)) < 1


def test_shifts_move_as_far_as_they_may(samples: np.ndarray) -> None:
    """Forth and back, at most by the share of the recording's length, which stays."""
    moved = [change(samples, number=n, shift=0.25) for n in range(100)]
    places = []
    for each in moved:
        kept = np.flatnonzero(each)
        start = int(np.flatnonzero(samples == each[kept[0]])[0])
        places.append((int(kept[0]) - start) / len(samples))
        assert (each[kept] == samples[start : start + len(kept)]).all()
    assert -0.25 <= min(places) < -0.2 and 0.2 < max(places) <= 0.25


@given(st.integers(-50, 50))
def test_what_is_moved_there_and_back_lacks_its_edge(by: int) -> None:
    samples = np.arange(1, 51, dtype=np.float32)
    back = shifted(shifted(samples, by), -by)
    assert len(back) == 50 and np.count_nonzero(back) == 50 - abs(by)
    assert (back[back > 0] == samples[back > 0]).all()


def test_masks_blank_one_piece_of_time(samples: np.ndarray) -> None:
    """At most the share that was asked for, anywhere, in one piece; all else is left."""
    widths, starts = [], []
    for number in range(100):
        blank = np.flatnonzero(change(samples, number=number, mask=0.4) == 0)
        assert not len(blank) or blank[-1] - blank[0] + 1 == len(blank)
        widths.append(len(blank) / len(samples))
        starts.append(blank[0] / len(samples) if len(blank) else 0)
    assert min(widths) < 0.05 and 0.35 < max(widths) <= 0.4
    assert min(starts) < 0.1 and max(starts) > 0.7


def test_masks_of_spectrograms_blank_time_and_bands(samples: np.ndarray) -> None:
    """The mean, which is 0 to the model; never in the padding behind the sound, which stays as it was."""
    plain = log_mel(samples, PICTURED)
    heard = int(np.flatnonzero(plain.any(axis=1))[-1]) + 1
    rows, bands = [], []
    for number in range(60):
        values = change(samples, number=number, sound=PICTURED, mask=0.5)
        assert (values[heard:] == plain[heard:]).all()
        blank = values[:heard] == np.float32(PICTURED.mean)
        in_time, in_bands = blank.all(axis=1), blank.all(axis=0)
        assert (blank == (in_time[:, None] | in_bands)).all()
        assert (values[:heard][~blank] == plain[:heard][~blank]).all()
        rows.append(in_time.mean())
        bands.append(in_bands.mean())
    assert 0.4 < max(rows) <= 0.51 and 0.4 < max(bands) <= 0.51


def test_a_recording_longer_than_is_read_keeps_its_length() -> None:
    """The middle is changed, as long as a batch was planned for."""
    long = np.random.default_rng(2).uniform(0.1, 0.5, 3 * RATE).astype(np.float32)
    changed = SoundChange(WAVEFORM, noise=0.1, shift=0.3)(0, SoundRow(row(long).data, 50), row_generator((7, 0, 1), 0))
    assert changed.values.shape == (RATE,) and len(changed) == 50
