// A client of Bellrope over transport 1, in plain JavaScript. README.md shows how to use it, index.d.ts has every type.

export { Client, connect } from './src/client.js';
export {
  BellropeError,
  Cancelled,
  Closed,
  Connect,
  DeadlineExceeded,
  Exhausted,
  Handler,
  HandlerPanic,
  InvalidRequest,
  MessageTooLarge,
  NotExecuted,
  Other,
  Rejected,
  Unknown,
  UnknownMessageType,
  Violation,
  WrongStyle,
} from './src/errors.js';
export { defaultSocketPath } from './src/path.js';
export { decodeJson, decodeText, encodeJson, textOf } from './src/payload.js';
export { ClientStream, Duplex, JsonStream, ServerStream } from './src/streams.js';
