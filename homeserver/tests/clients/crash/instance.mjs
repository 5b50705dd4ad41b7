// One server process that the test starts, kills with SIGKILL and starts again.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { Server } from "../js-sdk/server.mjs";

const START_SECONDS_MAX = 120;
const LOOK_AGAIN_MS = 20;

export class Instance {
    /** `script` is a file that execs the server, so that the pid is the server's own. */
    constructor(url, script, sharedSecret) {
        this.server = new Server(url, sharedSecret);
        this.script = script;
    }

    async start() {
        const process = spawn(this.script, { stdio: ["ignore", "ignore", "inherit"] });
        this.process = process;
        const end = performance.now() + START_SECONDS_MAX * 1000;
        while (performance.now() < end) {
            if (process.exitCode !== null) throw new Error(`${this.script} ended with ${process.exitCode}`);
            const answer = await fetch(`${this.server.baseUrl}/_matrix/client/versions`).catch(() => undefined);
            if (answer?.ok) return;
            await pause(LOOK_AGAIN_MS); // a process that starts announces itself by nothing but answering
        }
        throw new Error(`${this.script} does not answer after ${START_SECONDS_MAX} s`);
    }

    /** kill -9, and gone when this returns. */
    async kill() {
        if (this.process.exitCode !== null) throw new Error(`the server had ended by itself with ${this.process.exitCode}`);
        const gone = once(this.process, "exit");
        this.process.kill("SIGKILL");
        await gone;
    }

    async stop() {
        if (!this.process || this.process.exitCode !== null || this.process.signalCode !== null) return;
        const gone = once(this.process, "exit");
        this.process.kill("SIGTERM");
        const late = setTimeout(() => this.process.kill("SIGKILL"), 10_000);
        await gone;
        clearTimeout(late);
    }
}
