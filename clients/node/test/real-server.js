// A real server for a test: the program that BELLROPE_PROGRAM names, the one with types of every style that BELLROPE_STYLES
// names, or the one with typed services that BELLROPE_TYPED names.

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { connect } from '../index.js';
import { atEnd } from './at-end.js';
import { folder } from './fake-server.js';

export const PROGRAM = process.env.BELLROPE_PROGRAM;
export const STYLES = process.env.BELLROPE_STYLES;
export const TYPED = process.env.BELLROPE_TYPED;

const START_MS = 60_000;

export class RealServer {
  path;
  #start;
  #child = null;
  log = '';

  constructor(path, start) {
    this.path = path;
    this.#start = start;
  }

  /** `bellrope serve` with the embedded provider. */
  static async serve(t, ...settings) {
    const home = folder(t);
    const path = join(home, 'run', 'bellrope.sock');
    const server = new RealServer(path, () =>
      spawn(PROGRAM, ['serve', '--socket', path, '--provider', 'embedded', ...settings], {
        env: { PATH: process.env.PATH, HOME: home },
        stdio: ['ignore', 'pipe', 'pipe'],
      }),
    );
    return server.#begin(t);
  }

  /** The example with types of every style, which ends with its standard input. */
  static styles(t, ...more) {
    return RealServer.#example(t, STYLES, more);
  }

  /** The example with typed services, likewise. */
  static typed(t) {
    return RealServer.#example(t, TYPED);
  }

  static #example(t, program, more = []) {
    const path = join(folder(t), 'run', 'example.sock');
    return new RealServer(path, () => spawn(program, [path, ...more], { stdio: ['pipe', 'pipe', 'pipe'] })).#begin(t);
  }

  start() {
    const child = this.#start();
    for (const output of [child.stdout, child.stderr]) output.on('data', (text) => (this.log += text));
    child.gone = new Promise((resolve) => child.once('exit', resolve));
    this.#child = child;
  }

  /** Ends the server with a signal and waits until it is gone. */
  async end(signal) {
    this.#child.kill(signal);
    await this.#child.gone;
  }

  /** A client, as soon as the server takes one. */
  async client(options) {
    for (const until = Date.now() + START_MS; ; ) {
      try {
        return await connect({ path: this.path, connectTimeout: START_MS, ...options });
      } catch (error) {
        if (error.code !== 'Connect' || error.refusal !== undefined || this.#child.exitCode !== null || Date.now() > until) {
          throw new Error(`no server: ${this.log}`, { cause: error });
        }
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    }
  }

  async #begin(t) {
    this.start();
    atEnd(t, () => this.end('SIGKILL'));
    (await this.client()).close();
    return this;
  }
}
