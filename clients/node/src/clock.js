// The own monotonic clock in microseconds: CLOCK_MONOTONIC, the one that servers on the same machine read.

export function nowUs() {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e6 + Math.floor(nanoseconds / 1e3);
}

// Clocks that differ by less are one clock, and the difference is the time that the answer took.
const SAME_CLOCK_US = 5_000_000n;

/** What to add to the own clock to get the server's, from what it showed just now. */
export function clockOffset(serverUs, ownUs) {
  const offset = BigInt.asIntN(64, serverUs - BigInt(ownUs));
  return offset >= -SAME_CLOCK_US && offset <= SAME_CLOCK_US ? 0n : offset;
}

/** A moment of the own clock on the server's clock, as deadlines travel. */
export function onServerClock(ownUs, offset) {
  return BigInt.asUintN(64, BigInt(Math.floor(ownUs)) + offset);
}

/** Longest time of a timer in Node, in milliseconds. */
export const MAX_TIMER_MS = 2 ** 31 - 1;
