"""Embed clips one at a time with librosa and panns-inference, as in its documentation. bench.py times this.

python benchmarks/panns_loop.py DATASET CHECKPOINT OUTPUT.csv
"""

import csv
import sys
from pathlib import Path

import librosa
from panns_inference import AudioTagging

dataset, checkpoint, output = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
tagging = AudioTagging(checkpoint_path=checkpoint, device="cpu")
with open(dataset / "manifest.csv", newline="", encoding="utf-8") as table, open(output, "w", newline="") as file:
    writer = csv.writer(file)
    for row in csv.DictReader(table):
        samples, _ = librosa.load(dataset / row["file"], sr=32_000, mono=True)
        _, embedding = tagging.inference(samples[None])
        writer.writerow([row["file"], *embedding[0].tolist()])
