// Types of the client of Bellrope. They need no other types; with @types/node, bytes are Buffers.

/** What comes from the server: a Buffer. */
export type Bytes = typeof globalThis extends { Buffer: { alloc(size: number): infer B } } ? B : Uint8Array;

/**
 * What goes to the server: text as UTF-8, or bytes, or nothing. Bytes are not copied: do not change them before the call
 * has ended.
 */
export type Payload = string | ArrayBufferView | ArrayBuffer | null | undefined;

/** An AbortSignal, as far as it is needed. */
export interface Signal {
  readonly aborted: boolean;
  readonly reason?: any;
  addEventListener(type: 'abort', listener: () => void): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

export interface CallOptions {
  /**
   * Milliseconds for the whole call, streams included. Then it ends as DeadlineExceeded. Without `timeout` and `deadline` a
   * call has the client's `callTimeout`, and a stream has no deadline; `null` or Infinity: none.
   */
  timeout?: number | null | undefined;
  /** The same as a moment: a Date or its milliseconds. With both, the earlier one counts. */
  deadline?: Date | number | undefined;
  /** Ends the call as Cancelled when it fires. Any number of calls may share a signal. */
  signal?: Signal | undefined;
}

export interface ConnectOptions {
  /** The server's socket. Without it, `defaultSocketPath()`. */
  path?: string | undefined;
  /** The name for the server's log, cut to 64 bytes. Without it, the name of the program's file. */
  name?: string | undefined;
  /** Ask for the priority class, which a server allows to few. */
  priority?: boolean | undefined;
  /** Milliseconds for each try to connect. 5,000 if absent. */
  connectTimeout?: number | undefined;
  /** Milliseconds that a call waits while there is no connection. 1,000 if absent. */
  reconnectTimeout?: number | undefined;
  /** Milliseconds for each call that names no time; streams have none. 30,000 if absent; `null` or Infinity: none. */
  callTimeout?: number | null | undefined;
  /** Bytes of the largest message in either direction, if that is to be less than the server allows. */
  maxMessage?: number | undefined;
  /** Whether the socket must lie where only this user or root can put one, which is checked if this is absent. */
  checkOwner?: boolean | undefined;
  /** Gives up the first try to connect. */
  signal?: Signal | undefined;
}

export type State = 'connecting' | 'connected' | 'reconnecting' | 'closed';

export interface StateChange {
  readonly state: State;
  /** Why the connection was lost. */
  readonly error?: Connect | Violation;
}

export interface MessageType {
  readonly name: string;
  readonly style: 'unary' | 'server stream' | 'client stream' | 'duplex';
  /** The number of its codec: 1 JSON, 2 postcard, 0 if that is not known. */
  readonly codec: number;
  /** The hash of its types, 0n if that is not known. */
  readonly schema: bigint;
}

export interface Limits {
  /** Bytes of the largest request and response. */
  readonly maxMessage: number;
  /** Calls under way at once. */
  readonly maxInFlight: number;
  /** Bytes that a stream may be ahead of its reader. */
  readonly streamWindow: number;
}

/** Connects to a server. Rejects with a Connect if there is none. */
export function connect(pathOrOptions?: string | ConnectOptions): Promise<Client>;

/** A server that was started just now. It may be starting still. */
export interface Started {
  readonly pid: number;
  /** Where its standard output and error go, if anywhere. */
  readonly log: string | null;
}

/**
 * How to start the server that is not found. It outlives whoever started it, and belongs to all clients alike: it has a
 * session of its own, `/` as current directory (give it absolute paths), no descriptors, and few of the variables.
 */
export interface Spawn {
  /** A path, or a name that is looked up in PATH. */
  program: string;
  args?: readonly string[] | undefined;
  /** Names of further variables that it has, if they are set. */
  inherit?: readonly string[] | undefined;
  /** Further variables. */
  env?: Readonly<Record<string, string>> | undefined;
  /** Where its output goes. `$XDG_STATE_HOME/bellrope/PROGRAM.log`, the same below ~/.local/state, or beside the socket. */
  log?: string | undefined;
  /** Most bytes of the log and the one before it when it is started. 16 MiB if absent. */
  logBytes?: number | undefined;
  /** Milliseconds to wait until a server answers. 30,000 if absent. */
  timeout?: number | undefined;
  /** Called when a server was started, before it is waited for. */
  onStart?: ((started: Started) => void) | undefined;
}

/**
 * Connects to a server, or starts it and connects then. Of any number of clients that do so at once, in any language, one
 * starts it. Rejects with a Connect, of which SpawnErrors are a kind. Needs the program `flock`.
 */
export function connectOrSpawn(pathOrOptions: string | ConnectOptions | undefined, spawn: Spawn): Promise<Client>;

/** Where the log of a started server of this name lies, or null. */
export function defaultLogPath(name: string): string | null;

/** One connection to a server, made again when it is lost. Made by `connect`. */
export class Client {
  private constructor();
  readonly state: State;
  readonly path: string;
  /** The message types of the present connection. */
  readonly messageTypes: MessageType[];
  /** The limits of the present connection, or null. */
  readonly limits: Limits | null;

  /** One request, one response. */
  call(name: string, payload?: Payload, options?: CallOptions): Promise<Bytes>;
  /** One request, chunks from the server. The call begins at once. */
  stream(name: string, payload?: Payload, options?: CallOptions): ServerStream;
  /** A request, chunks to the server, one response. */
  clientStream(name: string, payload?: Payload, options?: CallOptions): ClientStream;
  /** A request, chunks both ways. */
  duplex(name: string, payload?: Payload, options?: CallOptions): Duplex;

  /** As `call`, with JSON both ways. Whole numbers beyond 2^53 are a bigint. */
  callJson<T = unknown>(name: string, value: unknown, options?: CallOptions): Promise<T>;
  /** As `stream`, with JSON both ways. Throws an Unwritable at once. */
  streamJson<T = unknown>(name: string, value: unknown, options?: CallOptions): Items<T>;
  /** As `clientStream`, with JSON both ways. */
  clientStreamJson<Sent = unknown, T = unknown>(name: string, value: unknown, options?: CallOptions): ItemUpload<Sent, T>;
  /** As `duplex`, with JSON both ways. */
  duplexJson<Sent = unknown, T = unknown>(name: string, value: unknown, options?: CallOptions): ItemDuplex<Sent, T>;

  /** As `call`, of a method of a typed service. Rejects with a ServiceError if the method answers with its own error. */
  callTyped<Request, Answer, Sent>(method: Method<Request, Answer, Sent>, value: Request, options?: CallOptions): Promise<Answer>;
  /** As `stream`, of a method of a typed service. */
  streamTyped<Request, Answer, Sent>(method: Method<Request, Answer, Sent>, value: Request, options?: CallOptions): Items<Answer>;
  /** As `clientStream`, of a method of a typed service. */
  clientStreamTyped<Request, Answer, Sent>(method: Method<Request, Answer, Sent>, value: Request, options?: CallOptions): ItemUpload<Sent, Answer>;
  /** As `duplex`, of a method of a typed service. */
  duplexTyped<Request, Answer, Sent>(method: Method<Request, Answer, Sent>, value: Request, options?: CallOptions): ItemDuplex<Sent, Answer>;

  /** Ends all calls as Closed, and everything that this client does. */
  close(): void;
  /** Keeps the program running while the client is open, which is the default. */
  ref(): this;
  /** Lets the program end although the client is open. */
  unref(): this;

  on(event: 'state', listener: (change: StateChange) => void): this;
  once(event: 'state', listener: (change: StateChange) => void): this;
  off(event: 'state', listener: (change: StateChange) => void): this;
  addListener(event: 'state', listener: (change: StateChange) => void): this;
  removeListener(event: 'state', listener: (change: StateChange) => void): this;
  removeAllListeners(event?: 'state'): this;
}

interface Cancel {
  /** Ends the call. What waits for it ends as Cancelled, with the reason as its cause. */
  cancel(reason?: unknown): void;
}

interface Reading<T> extends AsyncIterableIterator<T> {
  next(): Promise<IteratorResult<T, undefined>>;
  /** Cancels the call if it has not ended. What waits in `next` settles as done. */
  return(value?: any): Promise<IteratorResult<T, any>>;
  throw(error?: any): Promise<IteratorResult<T, any>>;
  [Symbol.asyncIterator](): this;
}

interface Writing {
  /**
   * Sends a chunk. Resolves to true when it is on its way, which waits for a slow server; to false if the server has ended
   * the call and wants no more. Rejects with why the call has failed.
   */
  send(chunk: Payload): Promise<boolean>;
  /** Sends every chunk, until the server wants no more. */
  sendAll(chunks: AsyncIterable<Payload> | Iterable<Payload>): Promise<boolean>;
}

/** Chunks from the server. Leaving a loop over it cancels the call. */
export class ServerStream implements Reading<Bytes>, Cancel {
  private constructor();
  next(): Promise<IteratorResult<Bytes, undefined>>;
  return(value?: any): Promise<IteratorResult<Bytes, any>>;
  throw(error?: any): Promise<IteratorResult<Bytes, any>>;
  [Symbol.asyncIterator](): this;
  cancel(reason?: unknown): void;
}

/** Chunks to the server, and its one response. */
export class ClientStream implements Writing, Cancel {
  private constructor();
  /** The response. The server may give it before the stream was ended. */
  readonly response: Promise<Bytes>;
  send(chunk: Payload): Promise<boolean>;
  sendAll(chunks: AsyncIterable<Payload> | Iterable<Payload>): Promise<boolean>;
  /** Ends the stream and waits for the response. */
  finish(): Promise<Bytes>;
  cancel(reason?: unknown): void;
}

/** Chunks both ways. Leaving a loop over it cancels the call. */
export class Duplex implements Reading<Bytes>, Writing, Cancel {
  private constructor();
  next(): Promise<IteratorResult<Bytes, undefined>>;
  return(value?: any): Promise<IteratorResult<Bytes, any>>;
  throw(error?: any): Promise<IteratorResult<Bytes, any>>;
  [Symbol.asyncIterator](): this;
  send(chunk: Payload): Promise<boolean>;
  sendAll(chunks: AsyncIterable<Payload> | Iterable<Payload>): Promise<boolean>;
  /** Ends the client's stream. The server's goes on. */
  end(): Promise<boolean>;
  cancel(reason?: unknown): void;
}

/** How values travel. */
export interface Codec {
  /** For people. */
  readonly name: string;
  /** 1 is JSON, 2 postcard. */
  readonly number: number;
  /** Whether fields travel with their names. Otherwise both sides must have the same schema. */
  readonly named: boolean;
  /** Throws what cannot be written. */
  encode(value: unknown, place: 'request' | 'sent'): Uint8Array;
  /** Throws what cannot be read. A Result comes as `{ Ok: value }` or `{ Err: error }`. */
  decode(bytes: Uint8Array, place: 'answer'): unknown;
}

/** The codec of services that name none. */
export const json: Codec;

export interface MethodOptions<Request, Answer, Sent> {
  /** `json` if absent. */
  readonly codec?: Codec;
  /** The hash of its types, 0n if it is not known. With a codec that is not `named`, a server with another hash is refused. */
  readonly schema?: bigint;
  /** Whether it answers with `Ok` or `Err`: then `Err` becomes a ServiceError. */
  readonly result?: boolean;
  /** From what callers give to what the codec takes. */
  readonly write?: ((request: Request) => unknown) | undefined;
  readonly writeItem?: ((item: Sent) => unknown) | undefined;
  /** From what the codec gives to what callers get: of an answer or item, and of `Err`. */
  readonly read?: ((answer: any) => Answer) | undefined;
  readonly readError?: ((error: any) => unknown) | undefined;
}

/** What a client knows of a method of a typed service. Generated clients have one for each method. */
export class Method<Request = unknown, Answer = unknown, Sent = never> implements MethodOptions<Request, Answer, Sent> {
  constructor(name: string, options?: MethodOptions<Request, Answer, Sent>);
  /** On the wire, such as `Files.read`. */
  readonly name: string;
  readonly codec: Codec;
  readonly schema: bigint;
  readonly result: boolean;
  readonly write: ((request: Request) => unknown) | undefined;
  readonly writeItem: ((item: Sent) => unknown) | undefined;
  readonly read: ((answer: any) => Answer) | undefined;
  readonly readError: ((error: any) => unknown) | undefined;
}

/**
 * The method has answered with its own error. The call has succeeded, so that this is no BellropeError: it is never
 * retryable, and no circuit breaker counts it.
 */
export class ServiceError<E = any> extends Error {
  constructor(method: string, error: E);
  readonly name: 'ServiceError';
  readonly code: 'ServiceError';
  readonly retryable: false;
  readonly method: string;
  /** What the method has answered with. */
  readonly error: E;
}

/** Items from the server. Leaving a loop over it cancels the call. */
export class Items<T = unknown> implements Reading<T>, Cancel {
  protected constructor();
  /** The next item. If it is an error of the application's, cancels the call and rejects with a ServiceError. */
  next(): Promise<IteratorResult<T, undefined>>;
  return(value?: any): Promise<IteratorResult<T, any>>;
  throw(error?: any): Promise<IteratorResult<T, any>>;
  [Symbol.asyncIterator](): this;
  /** The same stream, in which an error of the application's is an item, behind which it goes on. */
  results(): AsyncIterableIterator<T | ServiceError>;
  cancel(reason?: unknown): void;
  /** The stream of bytes below. */
  readonly stream: ServerStream | Duplex;
}

/** Items to the server, and its one answer. */
export class ItemUpload<Sent = unknown, T = unknown> implements Cancel {
  private constructor();
  /** As of a ClientStream. */
  send(item: Sent): Promise<boolean>;
  sendAll(items: AsyncIterable<Sent> | Iterable<Sent>): Promise<boolean>;
  /** Ends the stream and waits for the answer. */
  finish(): Promise<T>;
  cancel(reason?: unknown): void;
  readonly stream: ClientStream;
}

/** Items both ways. Leaving a loop over it cancels the call. */
export class ItemDuplex<Sent = unknown, T = unknown> extends Items<T> {
  private constructor();
  send(item: Sent): Promise<boolean>;
  sendAll(items: AsyncIterable<Sent> | Iterable<Sent>): Promise<boolean>;
  /** Ends the client's stream. The server's goes on. */
  end(): Promise<boolean>;
  readonly stream: Duplex;
}

/** The socket of this user's server, unless somebody names another. */
export function defaultSocketPath(): string;

/** A value as JSON. A bigint is a whole number. Throws what JSON cannot say, such as NaN. */
export function encodeJson(value: unknown): Bytes;
/** The value that a payload of JSON holds. Whole numbers beyond 2^53 are a bigint. */
export function decodeJson<T = unknown>(bytes: Uint8Array): T;
/** The text that a payload holds. */
export function decodeText(bytes: Uint8Array): string;
/** The text of a stream whose chunks may cut characters: yields whole characters only. */
export function textOf(chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): AsyncGenerator<string, void, undefined>;

export type Code =
  | 'Handler'
  | 'InvalidRequest'
  | 'HandlerPanic'
  | 'Exhausted'
  | 'Other'
  | 'Rejected'
  | 'MessageTooLarge'
  | 'DeadlineExceeded'
  | 'Cancelled'
  | 'UnknownMessageType'
  | 'WrongStyle'
  | 'Unwritable'
  | 'Unreadable'
  | 'Incompatible'
  | 'NotExecuted'
  | 'Unknown'
  | 'ClosedByServer'
  | 'Violation'
  | 'Connect'
  | 'Closed';

/** How a call ended that did not succeed. */
export class BellropeError extends Error {
  readonly name: Code;
  /** The outcome's name in the specification; the name of the class, too. */
  readonly code: Code;
  /** Whether the same call may be sent again without running twice. */
  readonly retryable: boolean;
  readonly cause?: unknown;
}

/** The handler answered with an error. */
export class Handler extends BellropeError {
  readonly code: 'Handler';
  /** The handler's own number. */
  readonly number: number;
}

/** The handler refused the contents of the request. */
export class InvalidRequest extends BellropeError {
  readonly code: 'InvalidRequest';
}

/** The handler panicked. */
export class HandlerPanic extends BellropeError {
  readonly code: 'HandlerPanic';
}

/** The server had no memory for the response, or nobody read the stream for too long. */
export class Exhausted extends BellropeError {
  readonly code: 'Exhausted';
}

/** An error of the server that this version has no name for. */
export class Other extends BellropeError {
  readonly code: 'Other';
  readonly number: number;
}

/** Refused for now; no handler saw the call. */
export class Rejected extends BellropeError {
  readonly code: 'Rejected';
  readonly reason: 'busy' | 'breaker' | 'draining' | 'other';
  /** After how many milliseconds another try may be worth it, if that is known. */
  readonly retryAfterMs: number | null;
}

/** The request, the response or a chunk has more bytes than the limit. */
export class MessageTooLarge extends BellropeError {
  readonly code: 'MessageTooLarge';
  readonly size: number;
  readonly limit: number;
}

/** The time for the call was over. */
export class DeadlineExceeded extends BellropeError {
  readonly code: 'DeadlineExceeded';
}

/** The caller cancelled the call. `cause` is the reason of the signal, if it was a signal. */
export class Cancelled extends BellropeError {
  readonly code: 'Cancelled';
}

/** The server has no message type of this name; nothing was sent. */
export class UnknownMessageType extends BellropeError {
  readonly code: 'UnknownMessageType';
  readonly messageType: string;
}

/** The message type has another style than the call; nothing was sent. */
export class WrongStyle extends BellropeError {
  readonly code: 'WrongStyle';
  readonly messageType: string;
  readonly style: MessageType['style'];
  readonly asked: MessageType['style'];
}

/** A value cannot be written as what travels; nothing was sent. `cause` says why. */
export class Unwritable extends BellropeError {
  readonly code: 'Unwritable';
  readonly method: string;
}

/** What the method has answered with cannot be read. It has run. `cause` says why. */
export class Unreadable extends BellropeError {
  readonly code: 'Unreadable';
  readonly method: string;
}

/** The server's method is another one than this client was made for; nothing was sent. */
export class Incompatible extends BellropeError {
  readonly code: 'Incompatible';
  readonly method: string;
  readonly differences: string;
}

/** The connection was lost, and it is certain that no handler saw the call. */
export class NotExecuted extends BellropeError {
  readonly code: 'NotExecuted';
}

/** The connection was lost, and the call may have run, once. */
export class Unknown extends BellropeError {
  readonly code: 'Unknown';
}

/** The server has closed the connection on account of this client, and has said why. Other calls get a new connection. */
export class ClosedByServer extends BellropeError {
  readonly code: 'ClosedByServer';
  /** The server's own words: which limit or rule, its value, and what to do. */
  readonly reason: string;
  /** Whether the call may have run, once. If not, it is safe to send it again, and `retryable`. */
  readonly mayHaveRun: boolean;
}

/** The server broke the protocol. */
export class Violation extends BellropeError {
  readonly code: 'Violation';
  /** The name of the rule. */
  readonly rule: string;
}

export interface Refusal {
  /** The status of the server's answer, or -1 if this side refused. */
  readonly status: number;
  readonly name: string;
  readonly text: string;
  /** Whether it passes by itself. */
  readonly passing: boolean;
}

/** There is no connection, and none could be made; nothing was sent. */
export class Connect extends BellropeError {
  readonly code: 'Connect';
  /** There if it was refused, by the server or on this side. */
  readonly refusal?: Refusal;
}

/** There is no server, though one might have been started. Its code is that of a Connect. */
export class SpawnError extends Connect {
  /**
   * `OtherVersion`: a server is there, of another version; it was left alone. `Start`: the program cannot be started.
   * `Ended`: it ended before it answered. `TimedOut`: nobody answered in time; what was started was ended. `Directory`,
   * `Lock`, `Log`, `Io`: what the message says. `Forbidden`: BELLROPE_NO_SPAWN is set.
   */
  readonly reason: 'OtherVersion' | 'Start' | 'Ended' | 'TimedOut' | 'Directory' | 'Lock' | 'Log' | 'Io' | 'Forbidden';
  readonly program: string | null;
  readonly exitCode: number | null;
  readonly signal: string | null;
  /** The last line that the program wrote. */
  readonly lastLine: string | null;
  /** Where all of it is. */
  readonly log: string | null;
}

/** The client was closed on this side. */
export class Closed extends BellropeError {
  readonly code: 'Closed';
}
