// Read by the compiler alone: what users write must have these types, and what is wrong must not compile.

import {
  BellropeError,
  connect,
  connectOrSpawn,
  Connect,
  decodeJson,
  decodeText,
  defaultSocketPath,
  encodeJson,
  Handler,
  Method,
  Rejected,
  ServiceError,
  SpawnError,
  textOf,
  type Bytes,
  type CallOptions,
  type Client,
  type Code,
  type StateChange,
} from 'bellrope';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<A, B>(_: Equal<A, B>): void {}

interface Chunk {
  seq: number;
  kind: string;
  text?: string;
}

export async function usage(signal: AbortSignal): Promise<void> {
  const client: Client = await connect();
  await connect('/run/x.sock');
  await connect({ path: defaultSocketPath(), name: 'editor', priority: true, connectTimeout: 1, reconnectTimeout: 1, callTimeout: null, maxMessage: 1, checkOwner: false, signal });

  await connectOrSpawn(undefined, { program: 'bellrope', args: ['serve'], inherit: ['KEY'], env: { A: 'b' }, onStart: ({ pid }) => pid.toFixed() });

  const options: CallOptions = { timeout: 1_000, deadline: new Date(), signal };
  const bytes: Bytes = await client.call('echo', 'text', options);
  const asArray: Uint8Array = bytes;
  await client.call('echo', asArray);
  await client.call('echo', new DataView(new ArrayBuffer(1)));
  await client.call('echo');
  await client.call('echo', '', { timeout: null });
  const typed = await client.callJson<{ text: string }>('ai.chat', { messages: [] });
  same<typeof typed, { text: string }>(true);
  const untyped = await client.callJson('ai.chat', {});
  same<typeof untyped, unknown>(true);

  for await (const chunk of client.stream('ai.chat_stream', encodeJson({}))) same<typeof chunk, Bytes>(true);
  for await (const chunk of client.streamJson<Chunk>('ai.chat_stream', {}, options)) same<typeof chunk, Chunk>(true);
  for await (const text of textOf(client.stream('x'))) same<typeof text, string>(true);

  const size = new Method<{ path: string }, number | bigint>('Files.size', { schema: 0x1234n, result: true });
  const bytesOfIt = await client.callTyped(size, { path: '/' }, options);
  same<typeof bytesOfIt, number | bigint>(true);
  const lines = new Method<{ path: string }, string>('Files.lines', { result: true });
  for await (const line of client.streamTyped(lines, { path: '/' })) same<typeof line, string>(true);
  for await (const line of client.streamTyped(lines, { path: '/' }).results()) same<typeof line, string | ServiceError>(true);
  const upload2 = new Method<{ name: string }, number, { bytes: Uint8Array }>('Files.upload', { writeItem: ({ bytes }) => [...bytes] });
  const parts = client.clientStreamTyped(upload2, { name: 'x' });
  await parts.send({ bytes: asArray });
  (await parts.finish()).toFixed();
  const edit = client.duplexTyped(new Method<{}, string, string>('Files.edit'), {});
  await edit.sendAll(['a']);
  await edit.end();
  for await (const edited of edit) same<typeof edited, string>(true);
  // @ts-expect-error the argument has another name
  await client.callTyped(size, { file: '/' });
  // @ts-expect-error items have another type
  await parts.send('text');

  const upload = client.clientStream('sum');
  const wanted: boolean = await upload.send('x');
  await upload.sendAll(['a', asArray]);
  const answer: string = decodeText(await upload.finish());
  decodeJson<Chunk>(await upload.response).seq.toFixed();

  const both = client.duplex('talk', null);
  await both.send(bytes);
  await both.end();
  const first = await both.next();
  if (!first.done) same<typeof first.value, Bytes>(true);
  await both.return();
  both.cancel(new Error('why'));

  client.on('state', (change: StateChange) => change.error?.code.length).off('state', () => {});
  client.once('state', ({ state }) => state === 'connected');
  same<typeof client.state, 'connecting' | 'connected' | 'reconnecting' | 'closed'>(true);
  client.unref().ref().close();

  try {
    await client.call('echo');
  } catch (error) {
    if (error instanceof BellropeError) {
      const code: Code = error.code;
      const retryable: boolean = error.retryable;
      void [code, retryable, wanted, answer];
    }
    if (error instanceof SpawnError) void [error.lastLine?.length, error.reason === 'Ended', error.code === 'Connect'];
    if (error instanceof ServiceError) void [error.error, error.method];
    if (error instanceof Rejected) same<typeof error.retryAfterMs, number | null>(true);
    if (error instanceof Handler) error.number.toFixed();
    if (error instanceof Connect) error.refusal?.passing;
  }

  // @ts-expect-error a value has to go through callJson
  await client.call('echo', { a: 1 });
  // @ts-expect-error no such option
  await client.call('echo', '', { retries: 3 });
  // @ts-expect-error made by connect() alone
  new (client.constructor as typeof Client)();
  // @ts-expect-error streams have no response
  await client.stream('x').response;
  // @ts-expect-error no such event
  client.on('error', () => {});
}
