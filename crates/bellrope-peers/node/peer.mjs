// Node's side of the comparison. Does what the Rust peers do, and prints the same line of JSON.
//   node peer.mjs serve socket HOME                    echoes frames on HOME/node.sock until standard input ends
//   node peer.mjs call socket ADDRESS SERVER TASK      calls it
//   node peer.mjs call json|advanced - - TASK          starts a child process of its own and calls that
//   node peer.mjs echo json|advanced                   is that child process
import { fork } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";

const [role, kind, ...rest] = process.argv.slice(2);
const HEAD = 4;

if (role === "serve") serve(rest[0]);
else if (role === "echo") process.on("message", (message) => process.send(message));
else {
  endWithParent();
  await call(rest[0], Number(rest[1]), JSON.parse(rest[2]));
}

function endWithParent() {
  process.stdin.on("end", () => process.exit(0)).resume();
}

function serve(home) {
  const address = path.join(home, "node.sock");
  const server = net.createServer((socket) => {
    socket.on("error", () => {});
    const read = frames((payload) => send(socket, payload));
    socket.on("data", (bytes) => {
      socket.cork(); // all answers to one piece are written in one go
      read(bytes);
      socket.uncork();
    });
  });
  server.listen(address, () => process.stdout.write(`ready ${address}\n`));
  endWithParent();
}

// Cuts pieces into frames: a length of 4 bytes, then the payload.
function frames(each) {
  let pieces = [], size = 0, wanted = HEAD;
  return (bytes) => {
    pieces.push(bytes);
    size += bytes.length;
    if (size < wanted) return;
    const all = pieces.length === 1 ? pieces[0] : Buffer.concat(pieces);
    let at = 0;
    wanted = HEAD;
    while (all.length - at >= HEAD) {
      const end = at + HEAD + all.readUInt32LE(at);
      if (end > all.length) {
        wanted = end - at;
        break;
      }
      each(all.subarray(at + HEAD, end));
      at = end;
    }
    pieces = at < all.length ? [all.subarray(at)] : [];
    size = all.length - at;
  };
}

function send(socket, payload) {
  const head = Buffer.allocUnsafe(HEAD);
  head.writeUInt32LE(payload.length);
  socket.cork();
  socket.write(head);
  socket.write(payload);
  socket.uncork();
}

async function call(address, server, task) {
  const links = kind === "socket" ? await sockets(address, task) : [child(kind)];
  const pid = kind === "socket" ? server : links[0].pid;
  const result = {
    round_trip: null, apart: null, throughput: null, server_kb: 0, client_kb: 0,
  };
  if (task.round_trips) {
    await roundTrips(links[0], pid, task, task.warm_up_ms, 0);
    result.round_trip = await roundTrips(links[0], pid, task, task.time_ms, 0);
  }
  if (task.apart_ms > 0) {
    await roundTrips(links[0], pid, task, task.warm_up_ms, 1);
    result.apart = await roundTrips(links[0], pid, task, task.apart_ms, 1);
  }
  if (task.depth > 0) {
    result.throughput = await throughput(links, pid, task);
  }
  result.server_kb = residentKb(pid);
  result.client_kb = residentKb(process.pid);
  for (const link of links) link.close();
  process.stdout.write(JSON.stringify(result) + "\n", () => process.exit(0));
}

// A link has `send(number)`, `onReply` and `close()`; it checks length, first and last byte of each reply.
async function sockets(address, task) {
  const connect = () => new Promise((resolve, reject) => {
    const payload = Buffer.alloc(task.size, 0x5a);
    const link = {
      onReply: null,
      send(number) {
        const stamped = Buffer.from(payload); // what was sent before may still be on its way
        stamped[0] = stamped[task.size - 1] = number & 0xff;
        send(socket, stamped);
      },
      batch(work) {
        socket.cork();
        work();
        socket.uncork();
      },
      close: () => socket.destroy(),
    };
    const socket = net.connect(address, () => resolve(link)).on("error", reject);
    const read = frames((reply) => {
      check(reply.length === task.size && reply[0] === reply[task.size - 1]);
      link.onReply();
    });
    socket.on("data", (bytes) => link.batch(() => read(bytes)));
  });
  return Promise.all(Array.from({ length: task.connections }, connect));
}

function child(serialization) {
  const task = JSON.parse(rest[2]);
  const program = fileURLToPath(import.meta.url);
  const process_ = fork(program, ["echo", serialization], { serialization });
  const bytes = Buffer.alloc(task.size, 0x5a), text = "Z".repeat(Math.max(task.size - 2, 0));
  const link = {
    pid: process_.pid,
    onReply: null,
    // What is best for each: JSON has no bytes, so it gets text; structured clone gets a buffer.
    send: serialization === "json"
      ? (number) => {
        const mark = String.fromCharCode(65 + (number % 26));
        process_.send(mark + text + mark);
      }
      : (number) => {
        bytes[0] = bytes[task.size - 1] = number & 0xff;
        process_.send(bytes);
      },
    batch: (work) => work(),
    close: () => process_.disconnect(),
  };
  process_.on("message", (reply) => {
    check(reply.length === task.size && reply[0] === reply[task.size - 1]);
    link.onReply();
  });
  return link;
}

function check(isEcho) {
  if (!isEcho) throw new Error("an echo differs from what was sent");
}

function roundTrips(link, pid, task, ms, gap) {
  return new Promise((resolve) => {
    const samples = [], before = cpuUs(pid) + cpuUs(process.pid);
    const end = process.hrtime.bigint() + BigInt(ms) * 1_000_000n;
    let began = process.hrtime.bigint();
    const next = () => {
      if (gap > 0) began = process.hrtime.bigint();
      link.send(samples.length);
    };
    const go = () => (gap > 0 ? setTimeout(next, gap) : next());
    link.onReply = () => {
      const now = process.hrtime.bigint();
      samples.push(Number(now - began));
      began = now;
      if (now < end) return go();
      const cpu = cpuUs(pid) + cpuUs(process.pid) - before;
      samples.sort((a, b) => a - b);
      const at = (share) => samples[Math.floor((samples.length - 1) * share)] / 1000;
      resolve({
        calls: samples.length, p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999),
        cpu_us_per_call: cpu / samples.length,
      });
    };
    go();
  });
}

// Counts from the first answer after the warm-up on, so that the window is full, and at least one window.
function throughput(links, pid, task) {
  return new Promise((resolve) => {
    const ms = (count) => BigInt(count) * 1_000_000n;
    const moment = (ns, answers) => ({ ns, answers, cpu: cpuUs(pid) + cpuUs(process.pid) });
    const warm = process.hrtime.bigint() + ms(task.warm_up_ms), least = task.depth * links.length;
    let count = 0, underWay = 0, sent = 0, began = null, ended = null;
    const sendOn = (link) => {
      underWay += 1;
      link.send(++sent);
    };
    for (const link of links) {
      link.onReply = () => {
        count += 1;
        underWay -= 1;
        if (ended === null) {
          const now = process.hrtime.bigint();
          if (began === null) {
            if (now >= warm) began = moment(now, count);
          } else if (now - began.ns >= ms(task.time_ms) && count - began.answers >= least) {
            ended = moment(now, count);
          }
          if (ended === null) sendOn(link);
        }
        if (underWay > 0 || ended === null) return;
        const calls = ended.answers - began.answers;
        resolve({
          calls, calls_per_s: calls / (Number(ended.ns - began.ns) / 1e9),
          cpu_us_per_call: (ended.cpu - began.cpu) / calls,
        });
      };
    }
    for (const link of links) link.batch(() => { for (let n = 0; n < task.depth; n++) sendOn(link); });
  });
}

// CPU time of all threads of a process that are alive, in microseconds.
function cpuUs(pid) {
  let ns = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    ns += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0]);
  }
  return ns / 1000;
}

function residentKb(pid) {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]);
}
