"""Write spoken words as folders of FLAC files, one folder a word, made by the speech synthesizer espeak-ng.

    python examples/voices/render.py [FOLDER] [--voices N] [--takes N]

FOLDER (by default `voices`) then has `left/en-us-f2_1.flac` and so on: 16 kHz, one channel, and the voice in the name
up to the last `_`, so that a split can keep what one voice says together. Each take has a pitch and a speed of its own,
drawn from the word, the voice and the take: the same command of the same espeak-ng writes the same samples.
Needs the program espeak-ng (https://github.com/espeak-ng/espeak-ng, GPL-3.0-or-later) and soundfile and soxr. About the
licence of what it writes, see README.md beside this file.
"""

import argparse
import io
import subprocess
import zlib
from pathlib import Path

import numpy as np
import soundfile
import soxr

RATE = 16_000
WORDS = ("left", "right", "stop", "go")
# "en" is the accent "en-gb", of which espeak-ng 1.51 passes over the speaker.
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-gb-x-gbclan")
SPEAKERS = ("m1", "f2", "f4", "m3", "m7", "f1", "f3", "m5")
PITCH, SPEED = (25, 75), (120, 210)  # of espeak-ng: 0 to 99, and words a minute
SILENCE = 0.02  # of the peak; what is quieter before and after a word is cut off, but for a little
MARGIN = RATE // 50


def voices(count: int) -> list[str]:
    """Pairs of an accent and a speaker, each accent and each speaker about equally often; there are 48."""
    again = 24  # after so many the same pairs would follow: the least common multiple of 6 and 8
    return [f"{ACCENTS[n % 6]}-{SPEAKERS[(n + n // again) % 8]}" for n in range(min(count, 2 * again))]


def render(word: str, voice: str, take: int) -> np.ndarray:
    """float32 samples at RATE."""
    draw = np.random.default_rng(zlib.crc32(f"{word} {voice} {take}".encode()))
    pitch, speed = draw.integers(*PITCH), draw.integers(*SPEED)
    accent, speaker = voice.rsplit("-", 1)
    command = ["espeak-ng", "-v", f"{accent}+{speaker}", "-p", str(pitch), "-s", str(speed), "--stdout", word]
    written = subprocess.run(command, check=True, capture_output=True).stdout
    samples, rate = soundfile.read(io.BytesIO(written), dtype="float32")
    heard = np.flatnonzero(np.abs(samples) > SILENCE * np.abs(samples).max())
    first, last = heard[0] * RATE // rate, heard[-1] * RATE // rate
    return soxr.resample(samples, rate, RATE)[max(0, first - MARGIN) : last + MARGIN]


def write(folder: Path, count: int, takes: int) -> None:
    for word in WORDS:
        (folder / word).mkdir(parents=True, exist_ok=True)
        for voice in voices(count):
            for take in range(1, takes + 1):
                place = folder / word / f"{voice}_{take}.flac"
                soundfile.write(place, render(word, voice, take), RATE, subtype="PCM_16")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", default="voices", type=Path)
    parser.add_argument("--voices", type=int, default=24)
    parser.add_argument("--takes", type=int, default=1)
    options = parser.parse_args()
    write(options.folder, options.voices, options.takes)
