"""bearings.py LAKE RECORDINGS: compares bronze.raw and the vibration features with the recordings of bearings.

bronze.raw, read with delta-rs, holds every sample of the inner-race and the
outer-race recording, byte for byte, and none of the normal one's. RMS and
kurtosis of every whole window in silver are what numpy and scipy make of the
file's samples, to 1e-6 of their size.
"""
import datetime
import os
import sys

import numpy as np
from deltalake import DeltaTable
from scipy import stats

WINDOW, RATE = 4096, 12_000
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
WHOLE = ["1797_ir_7_de12", "1797_or_at_6_7_de12"]


def table(lake, name, columns):
    return DeltaTable(os.path.join(lake, *name.split("."))).to_pyarrow_table(columns=columns).to_pylist()


def check_raw(rows, file, asset):
    want = open(file, "rb").read()
    blocks = sorted((r for r in rows if r["asset"].endswith("/" + asset)), key=lambda r: r["first_sample"])
    got = b"".join(r["samples"] for r in blocks)
    assert got == want, f"{asset}: bronze.raw holds {len(got)} bytes in {len(blocks)} blocks that differ from the file's {len(want)}"
    first = 0
    for b in blocks:
        assert b["first_sample"] == first and b["count"] * 4 == len(b["samples"]), b["first_sample"]
        assert b["rate"] == RATE and b["format"] == "f32le" and b["unit"] == "[g]", b
        want_time = START + datetime.timedelta(microseconds=round(first / RATE * 1e6))
        assert abs(b["event_time"] - want_time) <= datetime.timedelta(microseconds=1), (b["event_time"], want_time)
        first += b["count"]
    print(f"{asset}: {first} samples are the file's, byte for byte")


def check_features(rows, file, asset):
    x = np.fromfile(file, dtype="<f4").astype(np.float64)
    got = {}
    for r in rows:
        if r["asset"].endswith("/" + asset):
            assert (r["sensor"], r["event_time"]) not in got, f"{asset} {r['sensor']} {r['event_time']} stands twice"
            got[r["sensor"], r["event_time"]] = r["value"]
    worst = 0.0
    windows = len(x) // WINDOW
    for k in range(windows):
        w = x[k * WINDOW:(k + 1) * WINDOW]
        end = START + datetime.timedelta(microseconds=round((k + 1) * WINDOW / RATE * 1e6))
        for name, want in ("rms", np.std(w)), ("kurtosis", stats.kurtosis(w, fisher=False)):
            near = [v for (s, t), v in got.items() if s == "de_acceleration." + name and abs(t - end) <= datetime.timedelta(microseconds=1)]
            assert len(near) == 1, f"{asset}: window {k} has {len(near)} values of {name}"
            worst = max(worst, abs(near[0] - want) / abs(want))
    assert worst < 1e-6, f"{asset}: off by {worst}"
    n = sum(1 for s, _ in got if s == "de_acceleration.rms")
    assert n == windows, f"{asset}: {n} windows, want {windows}"
    print(f"{asset}: {windows} windows, RMS and kurtosis off by at most {worst:.1e}")


def main(lake, recordings):
    files = {f.removesuffix(".f32").lower(): os.path.join(recordings, f) for f in os.listdir(recordings) if f.endswith(".f32")}
    raw = table(lake, "bronze.raw", ["asset", "sensor", "event_time", "rate", "first_sample", "count", "format", "unit", "samples"])
    for asset in WHOLE:
        check_raw(raw, files[asset], asset)
    normal = [r for r in raw if "normal" in r["asset"]]
    assert not normal, f"{len(normal)} blocks of the normal recording"
    print("1797_normal: no sample left the edge;", "1797_b_7_de12:", sum(r["count"] for r in raw if "_b_" in r["asset"]), "samples did")
    silver = table(lake, "silver.readings", ["asset", "sensor", "event_time", "value"])
    for asset, file in sorted(files.items()):
        check_features(silver, file, asset)


main(*sys.argv[1:])
