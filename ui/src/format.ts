// How values, ages and times are written. Pure functions; times are
// milliseconds since the epoch.

export type Value = number | boolean | string | null;

const nbsp = "\u00a0";

/** Four significant digits, as many as a reader compares; exact integers stay whole. */
export function number(v: number): string {
  if (!Number.isFinite(v)) return String(v);
  const size = Math.abs(v);
  if (size !== 0 && (size < 0.001 || size >= 1e7)) return v.toExponential(2).replace("-", "−");
  if (Number.isInteger(v)) return group(String(v));
  const digits = size >= 1000 ? 0 : Math.min(6, Math.max(0, 3 - Math.floor(Math.log10(size))));
  return group(v.toFixed(digits));
}

function group(s: string): string {
  const [whole = "", part] = s.replace("-", "−").split(".");
  const sign = whole.startsWith("−") ? "−" : "";
  const digits = whole.slice(sign.length);
  const spaced = digits.length > 4 ? digits.replace(/\B(?=(\d{3})+$)/g, "\u202f") : digits;
  return sign + spaced + (part === undefined ? "" : "." + part);
}

/** A counter: whole up to four digits, then k, M, G. */
export function count(v: number): string {
  const size = Math.abs(v);
  if (size < 10_000) return group(String(Math.round(v)));
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]] as const) {
    // A hair below the unit already rounds up to it.
    if (size >= unit * 0.9995) {
      const n = v / unit;
      return n.toFixed(Math.abs(n) >= 100 ? 0 : Math.abs(n) >= 10 ? 1 : 2) + nbsp + letter;
    }
  }
  return String(v);
}

export function rate(perSecond: number): string {
  if (perSecond > 0 && perSecond < 0.1) return `<0.1${nbsp}/s`;
  const n = perSecond < 10 && perSecond !== 0 ? perSecond.toFixed(1) : count(perSecond);
  return `${n}${nbsp}/s`;
}

export function value(v: Value): string {
  if (v === null) return "no value";
  if (typeof v === "number") return number(v);
  if (typeof v === "boolean") return v ? "true" : "false";
  return v;
}

/** UCUM codes as a plant writes them; what is not listed is shown as it is. */
export function unit(code: string): string {
  switch (code) {
    case "Cel": return "°C";
    case "[degF]": return "°F";
    case "Ohm": return "Ω";
    case "1": return "";
    case "m/s2": return "m/s²";
    case "mm/s2": return "mm/s²";
    case "[g]": return "g";
    case "L/min": return "l/min";
    case "m3/h": return "m³/h";
    case "{rpm}": case "/min": return "1/min";
    default: return code;
  }
}

/** An age in at most two units: 7 s, 4 min 05 s, 3 h 12 min, 5 d 4 h. */
export function age(ms: number): string {
  const s = Math.floor(ms / 1000);
  if (s < 0) return `${age(-ms)} ahead`;
  if (s < 60) return `${s}${nbsp}s`;
  const two = (n: number) => String(n).padStart(2, "0");
  if (s < 3600) return `${Math.floor(s / 60)}${nbsp}min${nbsp}${two(s % 60)}${nbsp}s`;
  if (s < 86_400) return `${Math.floor(s / 3600)}${nbsp}h${nbsp}${two(Math.floor(s / 60) % 60)}${nbsp}min`;
  const d = Math.floor(s / 86_400);
  return d < 100 ? `${d}${nbsp}d${nbsp}${Math.floor(s / 3600) % 24}${nbsp}h` : `${d}${nbsp}d`;
}

export const day = (ms: number) => new Date(ms).toISOString().slice(0, 10);
export const clock = (ms: number) => new Date(ms).toISOString().slice(11, 19);

/** The same moment for the title: to the millisecond in UTC, then where the reader is. */
export function moments(ms: number): string {
  const at = new Date(ms);
  const utc = at.toISOString().replace("T", " ").replace("Z", " UTC").replace(".000 ", " ");
  return `${utc}\n${at.toLocaleString()} (here)`;
}
