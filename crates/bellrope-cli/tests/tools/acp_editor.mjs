// The Agent Client Protocol's own library, as an editor, against `bellrope acp`.
// Usage: acp_editor.mjs NODE_MODULES PROGRAM [ARGUMENT...]
// Prints "all well" in the end.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { Readable, Writable } from "node:stream";
import { pathToFileURL } from "node:url";

const [modules, program, ...given] = process.argv.slice(2);
const load = createRequire(`${modules}/`);
const acp = await import(pathToFileURL(load.resolve("@agentclientprotocol/sdk")));
const { agent } = acp.methods;

const child = spawn(program, given, { stdio: ["pipe", "pipe", "inherit"] });
const ended = new Promise((resolve) => child.on("exit", resolve));
const updates = [];
const editor = acp.client({ name: "editor" });
editor.onNotification(acp.methods.client.session.update, ({ params }) => void updates.push(params));

const textOf = (kind) =>
  updates
    .filter(({ update }) => update.sessionUpdate === kind)
    .map(({ update }) => update.content.text)
    .join("");

await editor.connectWith(acp.ndJsonStream(Writable.toWeb(child.stdin), Readable.toWeb(child.stdout)), async (context) => {
  const clientCapabilities = { fs: { readTextFile: false, writeTextFile: false } };
  const hello = await context.request(agent.initialize, { protocolVersion: acp.PROTOCOL_VERSION, clientCapabilities });
  assert.equal(hello.protocolVersion, acp.PROTOCOL_VERSION);
  assert.equal(hello.agentInfo.name, "bellrope");
  const { sessionId } = await context.request(agent.session.new, { cwd: "/", mcpServers: [] });
  const prompt = [{ type: "text", text: "Who is there?" }];
  const { stopReason } = await context.request(agent.session.prompt, { sessionId, prompt });
  assert.equal(stopReason, "end_turn");
  assert.match(textOf("agent_message_chunk"), /You asked: Who is there\?$/);
  const { sessions } = await context.request(agent.session.list, {});
  assert.ok(sessions.some((session) => session.sessionId === sessionId), JSON.stringify(sessions));

  updates.length = 0;
  await context.request(agent.session.load, { sessionId, cwd: "/", mcpServers: [] });
  assert.match(textOf("user_message_chunk"), /^Who is there\?$/);
  assert.match(textOf("agent_message_chunk"), /You asked: Who is there\?$/);
});
child.stdin.end();
assert.equal(await ended, 0);
console.log("all well");
