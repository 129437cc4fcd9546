// A client of Bellrope over transport 1, in plain JavaScript. README.md shows how to use it, index.d.ts has every type.

export { Client, connect, connectOrSpawn } from './src/client.js';
export {
  BellropeError,
  Cancelled,
  Closed,
  ClosedByServer,
  Connect,
  DeadlineExceeded,
  Exhausted,
  Handler,
  HandlerPanic,
  Incompatible,
  InvalidRequest,
  MessageTooLarge,
  NotExecuted,
  Other,
  Rejected,
  ServiceError,
  SpawnError,
  Unknown,
  UnknownMessageType,
  Unreadable,
  Unwritable,
  Violation,
  WrongStyle,
} from './src/errors.js';
export { defaultSocketPath } from './src/path.js';
export { ItemDuplex, Items, ItemUpload } from './src/items.js';
export { decodeJson, encodeJson } from './src/json.js';
export { json, Method } from './src/method.js';
export { decodeText, textOf } from './src/payload.js';
export { defaultLogPath } from './src/started.js';
export { ClientStream, Duplex, ServerStream } from './src/streams.js';
