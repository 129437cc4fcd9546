// What applications may give as a payload, and ways to read one.

const EMPTY = Buffer.alloc(0);

/** The bytes of a payload: text as UTF-8, bytes as they are (not copied), nothing as no bytes. */
export function bytesOf(payload) {
  if (typeof payload === 'string') return Buffer.from(payload);
  if (payload instanceof Uint8Array) return payload;
  if (payload === undefined || payload === null) return EMPTY;
  if (ArrayBuffer.isView(payload)) return new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength);
  if (payload instanceof ArrayBuffer) return new Uint8Array(payload);
  throw new TypeError(`a payload is a string or bytes, not ${typeof payload}; JSON goes through callJson and its like`);
}

/** The text that a payload holds. */
export function decodeText(bytes) {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}

/** The text of a stream whose chunks may cut characters: yields whole characters only. */
export async function* textOf(chunks) {
  const decoder = new TextDecoder();
  for await (const chunk of chunks) {
    const text = decoder.decode(chunk, { stream: true });
    if (text !== '') yield text;
  }
  const rest = decoder.decode();
  if (rest !== '') yield rest;
}
