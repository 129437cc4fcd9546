// A buffer that grows with what has come, not with what was announced.

const FIRST_BYTES = 4_096;
const EMPTY = Buffer.alloc(0);

export class Growing {
  #bytes = EMPTY;
  #length = 0;
  #size;

  /** For exactly `size` bytes in the end. */
  constructor(size) {
    this.#size = size;
  }

  /** Bytes in the end. */
  get size() {
    return this.#size;
  }

  /** Bytes that are still to come. */
  get missing() {
    return this.#size - this.#length;
  }

  /** Appends `source[start..end]`, which must not be more than is missing. */
  append(source, start, end) {
    const length = this.#length + (end - start);
    if (length > this.#bytes.length) this.#grow(length);
    source.copy(this.#bytes, this.#length, start, end);
    this.#length = length;
  }

  /** The bytes, once all have come. */
  take() {
    return this.#bytes;
  }

  // The last step takes exactly `size`, so `take` copies nothing.
  #grow(needed) {
    const grown = Buffer.allocUnsafeSlow(Math.min(this.#size, Math.max(needed, this.#bytes.length * 2, FIRST_BYTES)));
    this.#bytes.copy(grown, 0, 0, this.#length);
    this.#bytes = grown;
  }
}
