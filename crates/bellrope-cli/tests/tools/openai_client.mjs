// OpenAI's own client for Node against `bellrope serve --api-port`.
// Usage: openai_client.mjs NODE_MODULES BASE_URL MODEL
// The provider behind it calls the tool `look`, and says "All is done." once it has the result; asked without tools it
// answers with JSON. Prints "all well" in the end.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [modules, baseURL, model] = process.argv.slice(2);
const load = createRequire(`${modules}/`);
const { default: OpenAI } = load("openai");
const { zodResponseFormat, zodTextFormat } = load("openai/helpers/zod");
const { z } = load("zod");

const client = new OpenAI({ baseURL, apiKey: "none", timeout: 30_000 });
const messages = [{ role: "user", content: "Who is there?" }];
const parameters = { type: "object", properties: {} };
const Bell = z.object({ name: z.string(), rings: z.number() });
const bell = { name: "Ding", rings: 2 };

async function chatCompletions() {
  const tools = [{ type: "function", function: { name: "look", parameters } }];
  const first = await client.chat.completions.create({ model, messages, tools });
  const [choice] = first.choices;
  assert.equal(choice.finish_reason, "tool_calls");
  const [call] = choice.message.tool_calls;
  assert.deepEqual([call.function.name, JSON.parse(call.function.arguments)], ["look", { at: 1 }]);
  const result = { role: "tool", tool_call_id: call.id, content: "a bell" };
  const stream = client.chat.completions.stream({ model, messages: [...messages, choice.message, result], tools });
  assert.equal(await stream.finalContent(), "All is done.");
  const parsed = await client.chat.completions.parse({
    model,
    messages,
    response_format: zodResponseFormat(Bell, "bell"),
  });
  assert.deepEqual(parsed.choices[0].message.parsed, bell);
}

async function responses() {
  const tools = [{ type: "function", name: "look", parameters, strict: false }];
  const first = await client.responses.create({ model, input: messages, tools });
  const call = first.output.find((item) => item.type === "function_call");
  assert.deepEqual([call.name, JSON.parse(call.arguments)], ["look", { at: 1 }]);
  const result = { type: "function_call_output", call_id: call.call_id, output: "a bell" };
  const stream = client.responses.stream({ model, input: [...messages, ...first.output, result], tools });
  assert.equal((await stream.finalResponse()).output_text, "All is done.");
  const format = zodTextFormat(Bell, "bell");
  const parsed = await client.responses.parse({ model, input: messages, text: { format } });
  assert.deepEqual(parsed.output_parsed, bell);
}

await chatCompletions();
await responses();
await assert.rejects(client.chat.completions.create({ model, messages: [] }), OpenAI.BadRequestError);
console.log("all well");
