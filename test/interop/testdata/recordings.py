"""What recordings hold, read with Python's own csv module and no code of ours."""
import csv
import datetime
import os
from collections import Counter

SENSORS = {
    "Accelerometer1RMS": "accelerometer1_rms",
    "Accelerometer2RMS": "accelerometer2_rms",
    "Current": "current",
    "Pressure": "pressure",
    "Temperature": "temperature",
    "Thermocouple": "thermocouple",
    "Voltage": "voltage",
    "Volume Flow RateRMS": "volume_flow_rate_rms",
    "anomaly": None,
    "changepoint": None,
}
EPOCH = datetime.datetime(1970, 1, 1)
MICROSECOND = datetime.timedelta(microseconds=1)


def cells(top):
    """Counter of (path, µs since 1970 UTC, value)."""
    out = Counter()
    for folder, _, names in os.walk(top):
        for name in names:
            stem, ext = os.path.splitext(name)
            if ext != ".csv":
                continue
            line = os.path.relpath(folder, top)
            asset = "skab/%s/%s" % (stem if line == "." else line, stem)
            with open(os.path.join(folder, name), newline="") as f:
                for row in csv.DictReader(f, delimiter=";"):
                    at = datetime.datetime.strptime(row.pop("datetime"), "%Y-%m-%d %H:%M:%S")
                    us = (at - EPOCH) // MICROSECOND
                    for column, text in row.items():
                        sensor = SENSORS[column]
                        if sensor:
                            out[("%s/%s" % (asset, sensor), us, float(text))] += 1
    return out


def differ(where, got, want):
    """Prints how two counters differ; True if they do."""
    missing, extra = want - got, got - want
    if not missing and not extra:
        return False
    print("%s: %d missing, %d too many" % (where, sum(missing.values()), sum(extra.values())))
    for what, rows in (("missing", missing), ("too many", extra)):
        for row in sorted(rows)[:5]:
            print("  %s %s" % (what, row))
    return True
