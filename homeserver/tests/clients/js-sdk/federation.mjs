// The story across servers: alice on the first, bob on the second, and one more person on each further one.
//
//   BASE_URLS="http://localhost:8008 http://localhost:8009 …" REGISTRATION_SHARED_SECRETS="… …" \
//   STOP_SERVER="./stop" START_SERVER="./start" node federation.mjs
//
// STOP_SERVER and START_SERVER are commands; they get the server's number (0, 1, …) as their argument and return
// when the server is down, or up. Without them the chapter about a server that was away is not told.
// DOWN_SERVER says which one goes down (1), DOWN_SECONDS for how long (60).

import { execFile } from "node:child_process";
import process from "node:process";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
import { converse, exchangeFile, gather, part, restore, talk, trust } from "./chapters.mjs";
import { differences } from "./compare.mjs";
import { freshName, serversUnderTest } from "./server.mjs";
import { must, Steps } from "./steps.mjs";

const NAMES = ["alice", "bob", "carol", "dave", "erin"];
const HISTORY_EVENTS = 500;
const HISTORY_PAGES_MAX = 100;
/** A server that was away is told what it missed once it is back; back-off makes this the longest wait of all. */
const CATCH_UP_SECONDS_MAX = 240;
const COMMAND_SECONDS_MAX = 120;
const DOWN_SECONDS = Number(process.env.DOWN_SECONDS ?? 60);
const DOWN_SERVER = Number(process.env.DOWN_SERVER ?? 1);

await Steps.tell(`js-sdk story across ${process.env.BASE_URLS}`, async (steps) => {
    const servers = serversUnderTest();
    must(servers.length >= 2 && servers.length <= NAMES.length, "two to five BASE_URLS");
    const password = freshName("secret");
    const people = await steps.need("one person is registered on each server", () => Promise.all(servers.map(async (server, index) => {
        const name = freshName(NAMES[index]);
        return { server, name, password, id: await server.registerBySecret(name, password) };
    })));
    const [alice, bob, ...others] = people;
    const cast = await gather(steps, { alice, bob, others });
    const conversation = await talk(steps, cast);
    await trust(steps, cast, conversation);
    await converse(steps, cast, conversation);
    await exchangeFile(steps, cast, conversation);
    await restore(steps, cast, alice, conversation);
    const representatives = [cast.a1, cast.b1, ...cast.others];
    await agree(steps, representatives, conversation.roomId, conversation.said[0], "all servers have the same events and the same state");
    await backfill(steps, representatives);
    if (process.env.STOP_SERVER && process.env.START_SERVER) await absence(steps, representatives, conversation);
    else console.log("# no STOP_SERVER and START_SERVER: not told how a server comes back");
    await part(cast);
});

function agree(steps, devices, roomId, since, name) {
    return steps.step(name, async () => {
        let last = [];
        const same = devices[0].until("the servers to agree", async () => {
            const { found, events, state } = await differences(devices, roomId, since);
            last = found;
            return found.length === 0 && { events, state };
        }, CATCH_UP_SECONDS_MAX);
        const { events, state } = await same.catch((error) => {
            throw new Error([error.message, ...last.slice(0, 6)].join("\n"));
        });
        console.log(`# the same on ${devices.length} servers: ${events} events, ${state} state entries`);
    }, CATCH_UP_SECONDS_MAX + COMMAND_SECONDS_MAX);
}

/** A room with history on the first server; the others join late and page back through all of it. */
async function backfill(steps, [host, ...guests]) {
    const { roomId, sent } = await steps.need(`alice writes ${HISTORY_EVENTS} events into a public room`, async () => {
        const { room_id: roomId } = await host.client.createRoom({ preset: "public_chat", name: "Annals" });
        const path = `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/send/m.room.message`;
        const sent = [];
        for (let number = 0; number < HISTORY_EVENTS; number += 1) {
            const body = { msgtype: "m.text", body: `entry ${number}` };
            sent.push((await host.server.request("PUT", `${path}/${freshName("t")}`, { body, token: host.token })).event_id);
        }
        return { roomId, sent };
    }, CATCH_UP_SECONDS_MAX);
    for (const guest of guests) {
        await steps.step(`${guest.name} joins it and pages back through every one, in order`, async () => {
            const via = [host.userId.slice(host.userId.indexOf(":") + 1)];
            await guest.client.joinRoom(roomId, { viaServers: via });
            const room = await guest.until("the room", () => guest.room(roomId)?.getMyMembership() === "join" && guest.room(roomId));
            const timeline = room.getLiveTimeline();
            let more = true;
            for (let page = 0; more && page < HISTORY_PAGES_MAX; page += 1) {
                more = await guest.client.paginateEventTimeline(timeline, { backwards: true, limit: 100 });
            }
            const events = timeline.getEvents();
            const seen = events.map((event) => event.getId()).filter((id) => sent.includes(id));
            must(seen.join() === sent.join(), `${seen.length} of ${sent.length} seen, ${new Set(seen).size} different ones`);
            must(events[0].getType() === "m.room.create", `the first event is ${events[0].getType()}`);
        }, CATCH_UP_SECONDS_MAX);
    }
    await agree(steps, [host, ...guests], roomId, undefined, "and all servers hold the same history");
}

/** One server is away for a while, the others talk on; then it comes back and has everything. */
async function absence(steps, devices, { roomId, said }) {
    const away = devices[DOWN_SERVER];
    const present = devices.filter((device) => device !== away);
    await steps.need(`the server of ${away.name} stops`, () => command(process.env.STOP_SERVER), COMMAND_SECONDS_MAX);
    const missed = [];
    await steps.step(`the others talk for ${DOWN_SECONDS} s without it`, async () => {
        const end = performance.now() + DOWN_SECONDS * 1000;
        for (let turn = 0; performance.now() < end; turn += 1) {
            const aSecond = pause(1000);
            const speaker = present[turn % present.length];
            const eventId = await speaker.say(roomId, `while you were away, ${turn}`);
            for (const device of present) await device.readable(roomId, eventId);
            missed.push(eventId);
            await aSecond; // a measured absence, not a wait for something to happen
        }
        await present[0].client.sendStateEvent(roomId, "m.room.topic", { topic: "changed while you were away" }, "");
    }, DOWN_SECONDS + CATCH_UP_SECONDS_MAX);
    await steps.need("it starts again", () => command(process.env.START_SERVER), COMMAND_SECONDS_MAX);
    await steps.need(`${away.name} can speak again, and everyone reads it`, async () => {
        await away.until("a sync that works", () => away.client.getSyncState() === "SYNCING");
        const eventId = await away.say(roomId, "I am back");
        for (const device of devices) await device.readableFurtherBack(roomId, eventId);
    }, CATCH_UP_SECONDS_MAX);
    await steps.step(`${away.name} reads all ${missed.length} messages that were missed`, async () => {
        for (const eventId of missed) await away.readableFurtherBack(roomId, eventId, CATCH_UP_SECONDS_MAX);
    }, CATCH_UP_SECONDS_MAX);
    await agree(steps, devices, roomId, said[0], "afterwards all servers have the same events and the same state");
}

function command(line) {
    return promisify(execFile)("sh", ["-c", `${line} ${DOWN_SERVER}`], { timeout: COMMAND_SECONDS_MAX * 1000 });
}
