// Asks the AI gateway and prints the answer as it comes: node example.mjs 'Who is there?'
// The server is the one that `bellrope serve` started.

import { BellropeError, connect, defaultSocketPath } from 'bellrope';

const question = process.argv.slice(2).join(' ') || 'Who is there?';

// Ctrl-C cancels the answer, at the server too.
const abort = new AbortController();
process.once('SIGINT', () => abort.abort());

let client;
try {
  client = await connect(process.env.BELLROPE_SOCKET || defaultSocketPath());
  const request = { messages: [{ role: 'user', content: question }] };
  for await (const chunk of client.streamJson('ai.chat_stream', request, { signal: abort.signal })) {
    if (chunk.kind === 'text') process.stdout.write(chunk.text);
    if (chunk.kind === 'done') process.stdout.write('\n');
    if (chunk.kind === 'error') {
      console.error(`${chunk.code}: ${chunk.message}`);
      process.exitCode = 1;
    }
    // Kinds are added over time: ignore those you do not know.
  }
} catch (error) {
  if (!(error instanceof BellropeError)) throw error;
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
} finally {
  client?.close();
}
