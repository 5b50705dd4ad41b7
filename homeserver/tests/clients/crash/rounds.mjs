// Load that runs through rounds of kill -9, and ends in peace.

import process from "node:process";

const KILL_AFTER = Number(process.env.KILL_AFTER ?? 100);

export class Rounds {
    #writing = new AbortController();
    #reading = new AbortController();
    #round = 0;
    #waiters = [];
    #count = 0;
    broken = false;

    constructor(instances, writers, readers) {
        this.instances = instances;
        this.writers = writers;
        this.readers = readers;
        this.written = Promise.all(writers.map((writer) => writer.run(this.#writing.signal, () => this.#round, () => this.#acknowledged())));
        this.read = Promise.all(readers.map((reader) => reader.run(this.#reading.signal)));
        // A writer or a reader that is refused ends the load; the round that waits for it says so.
        this.failed = Promise.race([this.written, this.read]).then(() => new Promise(() => {}), (error) => {
            this.broken = true;
            throw error;
        });
        this.failed.catch(() => {});
    }

    #acknowledged() {
        this.#count += 1;
        this.#waiters = this.#waiters.filter(({ count, resolve }) => this.#count < count || resolve());
    }

    #more(count) {
        const enough = new Promise((resolve) => this.#waiters.push({ count: this.#count + count, resolve }));
        return Promise.race([enough, this.failed]);
    }

    /** Load, kill -9 one instance in the middle of it, go on without it if there is another, start it again, go on. */
    async round(number) {
        this.#round = number;
        await this.#more(Math.ceil(KILL_AFTER * (0.5 + Math.random())));
        const victim = this.instances[number % this.instances.length];
        await victim.kill();
        if (this.instances.length > 1) await this.#more(Math.ceil(KILL_AFTER / 2));
        await victim.start();
        for (const { client } of [...this.writers, ...this.readers]) client.goHome();
        await this.#more(1);
    }

    async end() {
        if (this.broken) return this.failed;
        this.#writing.abort();
        await this.written;
        const complete = () => this.readers.every((reader) => {
            const shown = new Set([...reader.seen.values()].flat().map((event) => event.event_id));
            return this.writers.every((writer) => shown.has(writer.acknowledged.at(-1).eventId));
        });
        // a reader that has not been shown everything after three more syncs never will be
        const syncs = this.readers.map((reader) => reader.syncs);
        await Promise.race([this.failed, until(() => complete() || this.readers.every((reader, index) => reader.syncs > syncs[index] + 2))]);
        this.#reading.abort();
        await this.read;
        return undefined;
    }
}

/** Resolves when `holds` does. The step around it bounds the wait. */
function until(holds) {
    return new Promise((resolve) => {
        const look = () => (holds() ? resolve() : setTimeout(look, 100));
        look();
    });
}
