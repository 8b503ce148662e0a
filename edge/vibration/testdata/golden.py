"""Writes golden.json, and the samples that it is of, by numpy and scipy.

    python golden.py           write the files beside this script
    python golden.py --check   compare with those that are there

numpy and scipy are pinned in scripts/venv.sh. Nothing here is a translation of the
Go code: bands are differences of an interpolated running sum, the envelope is
scipy's hilbert at the full rate, revolutions are integrated and inverted
numerically, the spline is scipy's.
"""
import json
import math
import os
import sys

import numpy as np
from scipy import interpolate, signal, stats

HERE = os.path.dirname(os.path.abspath(__file__))
G = 9806.65  # mm/s²


def noise(n, seed):
    """64-bit congruential noise, whose upper 16 bits are counts."""
    s, out = seed, np.empty(n, dtype="<i2")
    for i in range(n):
        s = (s * 6364136223846793005 + 1442695040888963407) % 2**64
        v = s >> 48
        out[i] = v - 65536 if v >= 32768 else v
    return out


def counts(x, scale):
    return np.clip(np.round(x / scale), -32768, 32767).astype("<i2")


def bearing(n, rate, hz, order, rng):
    """Impacts on a resonance, a shaft's imbalance, slow sway and noise."""
    t = np.arange(n) / rate
    x = 0.3 * np.sin(2 * np.pi * hz * t) + 0.05 * rng.standard_normal(n) + 0.2 + 0.1 * np.sin(2 * np.pi * 4.1 * t)
    for k in range(int(n / rate * order * hz) + 1):
        d = t - k / (order * hz) - 0.0003
        x += np.where(d > 0, np.exp(-d / 0.0011) * np.sin(2 * np.pi * 3300 * d), 0)
    return x


def runup(n, rate, speed):
    """Orders 1, 2 and 3.5848 of a shaft that gains speed; impacts at the last."""
    t = np.arange(n) / rate
    turns = speed.antiderivative()(t)
    x = 1.2 * np.sin(2 * np.pi * turns) + 0.5 * np.cos(4 * np.pi * turns)
    phase = np.mod(turns * 3.5848, 1) / 3.5848 / speed(t)
    return x + np.exp(-phase / 0.0011) * np.sin(2 * np.pi * 3300 * phase)


def line_spectrum(x, rate, n, overlap):
    step = n - round(overlap * n)
    f, p = signal.welch(x, rate, window="hann", nperseg=n, noverlap=n - step, detrend="constant", scaling="density")
    return f, p * (rate / n)


def band(lines, step, low, high):
    """Part of a running sum over lines that reach half a step to each side; the first
    and the last one's power is all inside."""
    low = -step / 2 if low == 0 else low
    high = high + step / 2 if high == step * (len(lines) - 1) else high
    edges = (np.arange(len(lines) + 1) - 0.5) * step
    total = np.concatenate([[0], np.cumsum(lines)])
    return np.interp(high, edges, total) - np.interp(low, edges, total)


def velocity(lines, step, unit, low, high):
    k = np.arange(1, len(lines))
    inside = np.clip(np.minimum((k + 0.5) * step, high) - np.maximum((k - 0.5) * step, low), 0, None) / step
    return unit * math.sqrt(np.sum(inside * lines[1:] / (2 * np.pi * k * step) ** 2))


def squared_envelope(x, rate, low, high):
    n = len(x)
    hz = rate / n
    X = np.fft.rfft(x - x.mean())
    k = np.arange(len(X))
    X[(k < math.ceil(low / hz)) | (k > math.floor(min(high, rate / 2 - hz) / hz))] = 0
    return np.abs(signal.hilbert(np.fft.irfft(X, n))) ** 2


def by_angle(x, rate, speed):
    """x at 2n angles, evenly apart from the first sample to before the last."""
    n = len(x)
    t = np.arange(n) / rate
    turns = speed.antiderivative()
    want = turns(t[-1]) * np.arange(2 * n) / (2 * n)
    at = np.interp(want, turns(t), t)
    for _ in range(20):
        at = np.maximum(at - (turns(at) - want) / speed(at), 0)
    return interpolate.CubicSpline(t, x, bc_type="natural")(at), float(turns(t[-1]))


def strikes(squared, rate, hz, orders, harmonics, speed=None):
    """Energies of the squared envelope by name: in Hz, or in orders of a speed."""
    n = len(squared)
    if speed is None:
        _, env = line_spectrum(squared, rate, n, 0)
        step = rate / n / hz
    else:
        y, turns = by_angle(squared - squared.mean(), rate, speed)
        _, env = line_spectrum(y, 1, len(y), 0)
        step = 1 / turns
    out = {".env.total": band(env, step, 5 / hz, 1000 / hz)}
    for name, order in orders.items():
        total = 0
        for h in range(1, harmonics + 1):
            half = max(0.02 * order * h, step)
            e = band(env, step, order * h - half, order * h + half)
            out[f".env.{name}.h{h}"] = e
            total += e
        out[f".env.{name}"] = total
    return out


def features(x, case):
    rate, n = case["rate"], case["window"]
    overlap, hz, harmonics = case.get("overlap", 0), case["rpm"] / 60, case.get("harmonics", 3)
    step = n - round(overlap * n)
    windows = [x[i : i + n] - x[i : i + n].mean() for i in range(0, len(x) - n + 1, step)]
    m2 = np.mean([stats.moment(w, 2, center=0) for w in windows])
    m3 = np.mean([stats.moment(w, 3, center=0) for w in windows])
    m4 = np.mean([stats.moment(w, 4, center=0) for w in windows])
    if len(windows) == 1:
        assert math.isclose(m4 / m2**2, stats.kurtosis(x, fisher=False), rel_tol=1e-12)
        assert math.isclose(m3 / m2**1.5, stats.skew(x), rel_tol=1e-9)
    out = {
        ".rms": math.sqrt(m2), ".kurtosis": m4 / m2**2, ".skewness": m3 / m2**1.5,
        ".peak": max(np.abs(w).max() for w in windows), ".p2p": max(np.ptp(w) for w in windows),
    }
    out[".crest"] = out[".peak"] / out[".rms"]
    f, p = line_spectrum(x, rate, n, overlap)
    speed = None
    if "profile" in case:
        at = [q["seconds"] for q in case["profile"]]
        bends = interpolate.make_interp_spline(at, [q["rpm"] / 60 for q in case["profile"]], k=1)
        speed = interpolate.PPoly.from_spline(bends)
        hz = float(speed.antiderivative()(n / rate)) / (n / rate)
    for b in case["bands"]:
        if "hz" in b:
            ms = band(p, rate / n, *b["hz"])
        elif speed is None:
            ms = band(p, rate / n, b["orders"][0] * hz, b["orders"][1] * hz)
        else:
            y, turns = by_angle(windows[0], rate, speed)
            _, q = line_spectrum(y, 1, len(y), 0)
            ms = band(q, 1 / turns, *b["orders"])
        out[".band." + b["name"]] = math.sqrt(max(ms, 0))
    low = 2 if hz < 10 else 10
    out[".velocity"] = velocity(p, rate / n, {"[g]": G, "m/s2": 1000}[case["unit"]], low, 1000)
    sums = {}
    for w in windows:
        for name, e in strikes(squared_envelope(w, rate, *case["envelope"]), rate, hz, case["orders"], harmonics, speed).items():
            sums[name] = sums.get(name, 0) + e / len(windows)
    for name, e in sums.items():
        out[name] = e**0.25
    lines = {str(k): p[k] for k in range(0, len(p), max(1, len(p) // 130))}
    return out, lines


def cases():
    rng = np.random.default_rng(20)
    skf = {"bpfo": 3.5848, "bpfi": 5.4152, "bsf": 4.7135, "ftf": 0.3983}
    bands = [
        {"name": "still", "orders": [0, 0.2]}, {"name": "sub", "orders": [0.2, 0.8]}, {"name": "once", "orders": [0.8, 1.2]}, {"name": "twice", "orders": [1.2, 2.7]},
        {"name": "slow", "hz": [0, 333.3]}, {"name": "fast", "hz": [333.3, 6000]},
    ]
    profile = [{"seconds": 0, "rpm": 1500}, {"seconds": 0.11, "rpm": 1800}, {"seconds": 0.4, "rpm": 2400}]
    base = {"unit": "[g]", "rpm": 1797, "orders": skf, "envelope": [2000, 5500], "bands": bands, "scale": 2.0**-11}
    up = interpolate.PPoly.from_spline(interpolate.make_interp_spline([q["seconds"] for q in profile], [q["rpm"] / 60 for q in profile], k=1))
    return [
        ("noise256", base | {"rate": 12000.0, "window": 256, "seed": 1, "samples": 256}, None),
        ("noise65536", base | {"rate": 51200.0, "window": 65536, "seed": 2, "samples": 65536, "unit": "m/s2", "rpm": 480, "harmonics": 5}, None),
        ("bearing", base | {"rate": 25600.0, "window": 8192}, bearing(8192, 25600, 29.95, 3.5848, rng)),
        ("average", base | {"rate": 12800.0, "window": 2048, "overlap": 0.5, "average": 7}, bearing(8192, 12800, 29.95, 5.4152, rng)),
        ("runup", base | {"rate": 12800.0, "window": 4096, "profile": profile}, runup(4096, 12800, up)),
    ]


def main():
    check = "--check" in sys.argv[1:]
    golden, failed = [], 0
    for name, case, x in cases():
        if x is None:
            c = noise(case["samples"], case["seed"])
        else:
            c = counts(x, case["scale"])
            file = os.path.join(HERE, name + ".i16")
            if check:
                failed += open(file, "rb").read() != c.tobytes()
            else:
                open(file, "wb").write(c.tobytes())
        values, lines = features(c * case["scale"], case)
        golden.append({"name": name, **case, "features": values, "lines": lines})
    file = os.path.join(HERE, "golden.json")
    if not check:
        json.dump(golden, open(file, "w"), indent=1)
        return 0
    for old, new in zip(json.load(open(file)), golden, strict=True):
        for part in "features", "lines":
            for k, v in new[part].items():
                if not math.isclose(v, old[part][k], rel_tol=1e-9, abs_tol=1e-15):
                    print(f"{new['name']} {part} {k}: the file says {old[part][k]}, scipy {v}")
                    failed += 1
    print(f"{len(golden)} cases, {failed} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
