// Vercel's AI SDK against `bellrope serve --api-port`.
// Usage: ai_sdk.mjs NODE_MODULES BASE_URL MODEL
// The provider behind it calls the tool `look`, and says "All is done." once it has the result; asked without tools it
// answers with JSON. Prints "all well" in the end.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [modules, baseURL, name] = process.argv.slice(2);
const load = createRequire(`${modules}/`);
const { Output, generateText, stepCountIs, streamText, tool } = load("ai");
const { createOpenAICompatible } = load("@ai-sdk/openai-compatible");
const { z } = load("zod");

const provider = createOpenAICompatible({ name: "bellrope", baseURL, supportsStructuredOutputs: true, includeUsage: true });
const model = provider(name);
const prompt = "Who is there?";

// Streamed: the SDK runs the tool, and asks again with its result.
const seen = [];
const inputSchema = z.object({ at: z.number() });
const look = tool({ description: "Looks", inputSchema, execute: async ({ at }) => (seen.push(at), "a bell") });
const streamed = streamText({ model, prompt, tools: { look }, stopWhen: stepCountIs(3) });
assert.equal(await streamed.text, "All is done.");
assert.deepEqual(seen, [1]);
assert.equal((await streamed.usage).outputTokens, 7);

const schema = z.object({ name: z.string(), rings: z.number() });
const { output } = await generateText({ model, prompt, output: Output.object({ schema }) });
assert.deepEqual(output, { name: "Ding", rings: 2 });
console.log("all well");
