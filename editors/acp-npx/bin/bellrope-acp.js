#!/usr/bin/env node
// Starts `bellrope acp` with the editor's own standard input and output. The program itself is not in this package.
import { spawn } from "node:child_process";
import { constants } from "node:os";

const program = process.env.BELLROPE || "bellrope";
const agent = spawn(program, ["acp", ...process.argv.slice(2)], { stdio: "inherit" });

agent.on("error", (error) => {
  const reason = error.code === "ENOENT" ? "there is no such program" : error.message;
  console.error(`error: ${program} cannot be started: ${reason}; install Bellrope, or name the program in BELLROPE`);
  process.exitCode = 1;
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => agent.kill(signal));
}
agent.on("exit", (code, signal) => {
  process.exitCode = code ?? 128 + constants.signals[signal];
});
