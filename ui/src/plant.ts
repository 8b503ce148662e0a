// The plant's clock as the page knows it: the last word of the server, carried
// on at the speed the server named.
import { computed, signal } from "@preact/signals";

interface Tick {
  plant: number; // the plant's time when the server spoke, ms
  wall: number; // performance.now() at that moment
  speed: number; // plant seconds per second; 0 when it follows event time
}

const last = signal<Tick | null>(null);
const beat = signal(0);

/** Plant time, new every second and at each word of the server; null before the first. */
export const plantNow = computed(() => {
  beat.value;
  return exactNow();
});

export const plantSpeed = computed(() => last.value?.speed ?? 1);

/** Plant time at this very moment. */
export function exactNow(): number | null {
  const t = last.value;
  return t && t.plant + (performance.now() - t.wall) * t.speed;
}

export function setClock(plant: number, speed: number): void {
  last.value = { plant, wall: performance.now(), speed };
}

/** Starts the beat that makes ages grow. */
export function startBeat(): void {
  setInterval(() => (beat.value += 1), 1000);
}
