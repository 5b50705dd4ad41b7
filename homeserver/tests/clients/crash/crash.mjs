// kill -9 under load. Every acknowledged event has to be there once and in order, and sync tokens have to go on.
//
//   REGISTRATION_SHARED_SECRET=… node crash.mjs URL=SCRIPT [URL=SCRIPT …]
//
// Each SCRIPT execs one server process that listens on URL. With one, the load waits until it is back; with several
// (instances on one database) clients go on at another one, and writers and readers start on different ones.
// KILL_ROUNDS (10), KILL_AFTER (events acknowledged in a round before the kill; 100, varied), WRITERS (4).

import process from "node:process";
import { Steps, must, within } from "../js-sdk/steps.mjs";
import { Instance } from "./instance.mjs";
import { Client, Reader, Writer, faults, history } from "./load.mjs";
import { Rounds } from "./rounds.mjs";

const ROUNDS = Number(process.env.KILL_ROUNDS ?? 10);
const WRITERS = Number(process.env.WRITERS ?? 4);
const ROOMS = 3;
const ROUND_SECONDS_MAX = 180;
/** A sync that waits on one instance while another writes: woken at once, or at most by the repair of a lost message. */
const WAKE_SECONDS_MAX = 5;

const instances = process.argv.slice(2).map((argument) => {
    const at = argument.indexOf("=");
    return new Instance(argument.slice(0, at), argument.slice(at + 1), process.env.REGISTRATION_SHARED_SECRET);
});
if (instances.length === 0) throw new Error("usage: node crash.mjs URL=SCRIPT [URL=SCRIPT …]");
const title = `kill -9, ${ROUNDS} rounds, ${instances.length} instance${instances.length > 1 ? "s" : ""} (${process.env.CRASH_TITLE ?? "default"})`;
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => Promise.all(instances.map((one) => one.stop())).then(() => process.exit(1)));
process.on("exit", () => instances.forEach((one) => one.process?.kill("SIGKILL")));

await Steps.tell(title, async (steps) => {
    await steps.need("the server starts", () => Promise.all(instances.map((one) => one.start())), ROUND_SECONDS_MAX);
    const { writers, readers, rooms } = await steps.need("writers and readers share three rooms", cast);
    if (instances.length > 1) await steps.step("a sync waiting on one instance is woken by a write on the other", () => wakes(writers[0], readers[0], rooms[0]));
    await Promise.all(readers.map((reader) => reader.start()));

    const rounds = new Rounds(instances, writers, readers);
    for (let round = 1; round <= ROUNDS; round += 1) {
        await steps.step(`round ${round}: killed under load, and the load goes on`, () => rounds.round(round), ROUND_SECONDS_MAX);
        if (rounds.broken) break;
    }
    await steps.need("the load ends in peace, the readers have caught up", () => rounds.end(), ROUND_SECONDS_MAX);
    const total = writers.reduce((sum, writer) => sum + writer.acknowledged.length, 0);
    console.log(`# ${total} events acknowledged, ${readers.map((reader) => reader.syncs).join(" + ")} syncs`);
    await steps.step("every acknowledged event is in its room once, each writer's in order", () => inRooms(writers, readers[0], rooms), ROUND_SECONDS_MAX);
    await steps.step("every reader was shown every one of them once and in order", async () => {
        report(readers.flatMap((reader, index) => rooms.flatMap((roomId) => faults(`reader ${index}`, reader.seen.get(roomId) ?? [], writers, roomId))));
    });
    await Promise.all(instances.map((one) => one.stop()));
});

/** Writers start on the first instance, readers on the last. */
async function cast() {
    const servers = instances.map((one) => one.server);
    const writing = await Promise.all(Array.from({ length: WRITERS }, (_, index) => Client.register(servers, index, `writer${index}`)));
    const reading = await Promise.all([0, 1].map((index) => Client.register(servers, servers.length - 1 - index + servers.length, `reader${index}`)));
    const rooms = [];
    for (let number = 0; number < ROOMS; number += 1) {
        const { room_id: roomId } = await writing[0].persist("POST", "/_matrix/client/v3/createRoom", { preset: "public_chat", name: `Room ${number}` });
        for (const client of [...writing.slice(1), ...reading]) await client.persist("POST", `/_matrix/client/v3/join/${encodeURIComponent(roomId)}`, {});
        rooms.push(roomId);
    }
    return { writers: writing.map((client) => new Writer(client, rooms)), readers: reading.map((client) => new Reader(client)), rooms };
}

async function wakes(writer, reader, roomId) {
    const [here, there] = [writer.client.at, reader.client.at];
    must(here !== there, `writer and reader are on different instances: ${here}, ${there}`);
    const { next_batch: since } = await reader.client.persist("GET", "/_matrix/client/v3/sync?timeout=0");
    const waiting = reader.client.persist("GET", `/_matrix/client/v3/sync?timeout=30000&since=${encodeURIComponent(since)}`);
    const path = `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/send/m.room.message/wake`;
    const { event_id: eventId } = await writer.client.persist("PUT", path, { msgtype: "m.text", body: "wake up" });
    const answer = await within(WAKE_SECONDS_MAX, "the waiting sync", waiting);
    const shown = answer.rooms?.join?.[roomId]?.timeline.events.map((event) => event.event_id) ?? [];
    must(shown.includes(eventId), `it shows ${shown}`);
}

async function inRooms(writers, reader, rooms) {
    const found = [];
    for (const roomId of rooms) found.push(...faults(roomId, await history(reader.client, roomId), writers, roomId));
    report(found);
}

function report(found) {
    must(found.length === 0, `${found.length} faults\n${found.slice(0, 6).join("\n")}`);
}
