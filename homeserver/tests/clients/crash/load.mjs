// Writers and readers that live through crashes as patient clients do, and remember what they were promised.

import { setTimeout as pause } from "node:timers/promises";
import { freshName } from "../js-sdk/server.mjs";

const SYNC_WAIT_MS = 10_000;
const SYNC_FILTER = JSON.stringify({ presence: { types: [] }, room: { timeline: { limit: 100 } } });
const REQUEST_SECONDS_MAX = 30;
const RETRY_MS = 50;

/** One account that talks to whichever instance answers, starting with its favourite one. */
export class Client {
    constructor(servers, favourite, token, userId) {
        this.servers = servers;
        this.favourite = favourite % servers.length;
        this.goHome();
        this.token = token;
        this.userId = userId;
    }

    /** Back to the instance it prefers, from wherever an outage has driven it. */
    goHome() { this.at = this.favourite; }

    static async register(servers, favourite, name) {
        const [user, password] = [freshName(name), freshName("secret")];
        const id = await servers[0].registerBySecret(user, password);
        const body = { type: "m.login.password", identifier: { type: "m.id.user", user: id }, password };
        const { access_token: token } = await servers[0].request("POST", "/_matrix/client/v3/login", { body });
        return new Client(servers, favourite, token, id);
    }

    /** Asks again, at the next instance, until there is an answer; an error status is an answer and is thrown. */
    async persist(method, path, body, signal) {
        for (;;) {
            signal?.throwIfAborted();
            try {
                return await this.#once(method, path, body, signal);
            } catch (error) {
                signal?.throwIfAborted();
                if (error.status && error.status < 500) throw error;
                this.at = (this.at + 1) % this.servers.length;
                await pause(RETRY_MS); // the server is down: what waits here is the client's own back-off
            }
        }
    }

    async #once(method, path, body, signal) {
        const response = await fetch(this.servers[this.at].baseUrl + path, {
            method,
            headers: { authorization: `Bearer ${this.token}`, ...(body && { "content-type": "application/json" }) },
            body: body && JSON.stringify(body),
            signal: AbortSignal.any([AbortSignal.timeout(REQUEST_SECONDS_MAX * 1000), ...(signal ? [signal] : [])]),
        });
        const text = await response.text();
        if (!response.ok) throw Object.assign(new Error(`${method} ${path}: ${response.status} ${text}`), { status: response.status });
        return JSON.parse(text);
    }
}

/** Sends numbered messages into the rooms in turn, one at a time, the same transaction again until it is acknowledged. */
export class Writer {
    /** What was acknowledged: { eventId, roomId, number, round } in the order of sending. */
    acknowledged = [];
    attempted = 0;

    constructor(client, rooms) {
        this.client = client;
        this.rooms = rooms;
    }

    async run(signal, roundNow, onAcknowledged) {
        for (;;) {
            if (signal.aborted) return;
            const number = this.attempted++;
            const roomId = this.rooms[number % this.rooms.length];
            const body = { msgtype: "m.text", body: `message ${number}`, number, writer: this.client.userId };
            const path = `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/send/m.room.message/n${number}`;
            const { event_id: eventId } = await this.client.persist("PUT", path, body);
            this.acknowledged.push({ eventId, roomId, number, round: roundNow() });
            onAcknowledged();
        }
    }
}

/** Syncs from one token to the next without a break, and keeps the order in which events were shown. */
export class Reader {
    /** Per room: the events of writers in the order they were shown. */
    seen = new Map();
    syncs = 0;

    constructor(client) {
        this.client = client;
    }

    async start() {
        const first = await this.#sync(undefined, 0);
        this.since = first.next_batch;
    }

    async run(signal) {
        while (!signal.aborted) {
            const answer = await this.#sync(this.since, SYNC_WAIT_MS, signal).catch((error) => {
                if (signal.aborted) return undefined;
                throw error;
            });
            if (!answer) return;
            for (const [roomId, room] of Object.entries(answer.rooms?.join ?? {})) {
                const shown = room.timeline?.events ?? [];
                if (room.timeline?.limited) shown.unshift(...(await this.#gap(roomId, room.timeline.prev_batch, this.since)));
                this.#show(roomId, shown);
            }
            this.since = answer.next_batch;
            this.syncs += 1;
        }
    }

    #sync(since, timeout, signal) {
        const query = new URLSearchParams({ filter: SYNC_FILTER, timeout, ...(since && { since }) });
        return this.client.persist("GET", `/_matrix/client/v3/sync?${query}`, undefined, signal);
    }

    #show(roomId, events) {
        const list = this.seen.get(roomId) ?? [];
        list.push(...events.filter(isNumbered));
        this.seen.set(roomId, list);
    }

    /** What a limited timeline left out: back from its start to where the last sync ended. */
    async #gap(roomId, from, to) {
        const missing = [];
        const known = new Set((this.seen.get(roomId) ?? []).map((event) => event.event_id));
        for (;;) {
            const query = new URLSearchParams({ dir: "b", from, to, limit: 100 });
            const { chunk, end } = await this.client.persist("GET", `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/messages?${query}`);
            const met = chunk.findIndex((event) => known.has(event.event_id));
            missing.unshift(...(met < 0 ? chunk : chunk.slice(0, met)).reverse());
            if (met >= 0 || !end || end === to || chunk.length === 0) return missing;
            from = end;
        }
    }
}

export const isNumbered = (event) => event.type === "m.room.message" && Number.isInteger(event.content?.number);

/** Everything that can be paged back to in a room, oldest first. */
export async function history(client, roomId) {
    const events = [];
    let from;
    do {
        const query = new URLSearchParams({ dir: "b", limit: 100, ...(from && { from }) });
        const page = await client.persist("GET", `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/messages?${query}`);
        events.push(...page.chunk);
        from = page.end;
    } while (from);
    return events.reverse().filter(isNumbered);
}

/** What is wrong with `events` as the record of what the writers were promised, in words. */
export function faults(where, events, writers, roomId) {
    const found = [];
    const count = new Map();
    for (const event of events) {
        const key = `${event.content.writer} ${event.content.number}`;
        count.set(key, (count.get(key) ?? 0) + 1);
    }
    for (const [key, times] of count) if (times > 1) found.push(`${where}: ${key} is there ${times} times`);
    const ids = new Set(events.map((event) => event.event_id));
    for (const writer of writers) {
        const promised = writer.acknowledged.filter((entry) => entry.roomId === roomId);
        for (const { eventId, number, round } of promised) {
            if (!ids.has(eventId)) found.push(`${where}: ${writer.client.userId} ${number}, acknowledged as ${eventId} in round ${round}, is missing`);
        }
        const numbers = events.filter((event) => event.content.writer === writer.client.userId).map((event) => event.content.number);
        const bad = numbers.findIndex((number, at) => at > 0 && number <= numbers[at - 1]);
        if (bad > 0) found.push(`${where}: ${writer.client.userId} ${numbers[bad]} comes after ${numbers[bad - 1]}`);
    }
    return found;
}
