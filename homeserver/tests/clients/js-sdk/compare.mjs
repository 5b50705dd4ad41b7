// What several servers hold of one room, compared through the client API.

const PAGE_EVENTS = 100;
const PAGES_MAX = 200;

/** Every event of the room that `device` can page back to, newest first. */
async function everything(device, roomId) {
    const room = `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}`;
    const events = [];
    let from = "";
    for (let page = 0; page < PAGES_MAX; page += 1) {
        const { chunk, end } = await device.server.request("GET", `${room}/messages?dir=b&limit=${PAGE_EVENTS}${from}`, { token: device.token });
        events.push(...chunk);
        if (!end) return events;
        from = `&from=${encodeURIComponent(end)}`;
    }
    throw new Error(`${device.name} pages back without end`);
}

const sorted = (value) => {
    if (Array.isArray(value)) return value.map(sorted);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
};

async function holdings(device, roomId, since) {
    const all = (await everything(device, roomId)).reverse();
    const events = all.slice(Math.max(0, all.findIndex((event) => event.event_id === since)));
    const ids = events.map((event) => event.event_id);
    const bySender = new Map();
    for (const event of events) bySender.set(event.sender, [...(bySender.get(event.sender) ?? []), event.event_id]);
    const state = await device.server.request("GET", `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/state`, { token: device.token });
    return {
        duplicates: ids.filter((id, at) => ids.indexOf(id) !== at),
        events: new Map(events.map((event) => [event.event_id, JSON.stringify(sorted([event.type, event.sender, event.content]))])),
        bySender,
        state: new Map(state.map((event) => [`${event.type} "${event.state_key}"`, event.event_id])),
    };
}

/**
 * In what two or more servers differ about a room, in words; an empty list if in nothing.
 *
 * Events and state have to be the same. The order of events of different senders may differ between servers,
 * that of one sender may not. With `since`, an event that was sent when all servers were in the room, only the events
 * from there on are compared: of what was before, a server that joined late has what it fetched, and Synapse gives up
 * for an hour on an event if the server it happens to ask has not fetched it yet.
 */
export async function differences(devices, roomId, since) {
    // one after another, so that a server that fetches history can have it from the one paged before
    const held = [];
    for (const device of devices) held.push(await holdings(device, roomId, since));
    const [first, ...rest] = held;
    const found = first.duplicates.map((id) => `${devices[0].name} has ${id} twice`);
    rest.forEach((other, index) => {
        const who = `${devices[0].name} / ${devices[index + 1].name}`;
        found.push(...other.duplicates.map((id) => `${devices[index + 1].name} has ${id} twice`));
        found.push(...differing("event", first.events, other.events, who), ...differing("state", first.state, other.state, who));
        for (const [sender, ids] of first.bySender) {
            if (ids.join() !== (other.bySender.get(sender) ?? []).join()) found.push(`order of ${sender}'s events: ${who}`);
        }
    });
    return { found, events: first.events.size, state: first.state.size };
}

function differing(what, one, other, who) {
    const keys = new Set([...one.keys(), ...other.keys()]);
    return [...keys].filter((key) => one.get(key) !== other.get(key)).map((key) => `${what} ${key}: ${one.get(key) ?? "missing"} / ${other.get(key) ?? "missing"} (${who})`);
}
