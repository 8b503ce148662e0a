// Small parts that several views share.
import type { Status } from "./api";
import { age, moments } from "./format";
import { plantNow } from "./plant";

const words: Record<Status | "lost", string> = {
  good: "good",
  silent: "never a value",
  stale: "stale",
  bad: "bad quality",
  lost: "connection lost",
};

/** A state as shape and colour, never as colour alone. */
export function Mark({ status }: { status: Status }) {
  return (
    <svg class={`mark mark-${status}`} viewBox="0 0 12 12" width="12" height="12" role="img" aria-label={words[status]}>
      <title>{words[status]}</title>
      {status === "good" && <circle cx="6" cy="6" r="3" />}
      {status === "silent" && <circle cx="6" cy="6" r="3.6" fill="none" stroke-width="1.6" />}
      {status === "stale" && <path d="M6 1 11.4 11H.6z" />}
      {status === "bad" && <path d="M6 0l6 6-6 6-6-6z" />}
    </svg>
  );
}

export const word = (s: Status) => words[s];

/** How long ago a moment was by the plant's clock; it grows by itself. */
export function Age({ at, class: name }: { at: number | null; class?: string | undefined }) {
  const now = plantNow.value;
  if (at === null || now === null) return <span class={`age none ${name ?? ""}`}>–</span>;
  // Within a second of the server's clock, "ahead" is rounding and not a wrong clock.
  const span = now - at;
  return (
    <time class={`age ${name ?? ""}`} dateTime={new Date(at).toISOString()} title={moments(at)}>
      {age(span < 0 && span > -2000 ? 0 : span)}
    </time>
  );
}

export function Chip({ children, kind, title }: { children: preact.ComponentChildren; kind?: string; title?: string }) {
  return (
    <span class={`chip ${kind ?? ""}`} title={title}>
      {children}
    </span>
  );
}

/** What a view says when it has nothing to show: what is so, and what to do. */
export function Empty({ title, children }: { title: string; children?: preact.ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children}
    </div>
  );
}
