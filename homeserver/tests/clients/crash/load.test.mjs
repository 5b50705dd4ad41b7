// The judge of kill -9 has to be able to find the guilty.

import assert from "node:assert/strict";
import { test } from "node:test";
import { faults } from "./load.mjs";

const ROOM = "!room";
const WRITER = "@writer:here";
const event = (number) => ({ event_id: `$${number}`, type: "m.room.message", content: { number, writer: WRITER } });
const writer = (...numbers) => ({ client: { userId: WRITER }, acknowledged: numbers.map((number) => ({ eventId: `$${number}`, roomId: ROOM, number, round: 1 })) });

test("a complete room in order has no faults", () => assert.deepEqual(faults("room", [event(0), event(1)], [writer(0, 1)], ROOM), []));
test("an event that was never acknowledged may be there", () => assert.deepEqual(faults("room", [event(0), event(1)], [writer(0)], ROOM), []));
test("an acknowledged event that is missing is found", () => assert.match(faults("room", [event(0)], [writer(0, 1)], ROOM).join(), /1, acknowledged as \$1 in round 1, is missing/));
test("an event that is there twice is found", () => assert.match(faults("room", [event(0), event(0)], [writer(0)], ROOM).join(), /2 times/));
test("a message sent twice under two event ids is found", () => {
    const twin = { ...event(0), event_id: "$twin" };
    assert.match(faults("room", [event(0), twin], [writer(0)], ROOM).join(), /2 times/);
});
test("events in the wrong order are found", () => assert.match(faults("room", [event(1), event(0)], [writer(0, 1)], ROOM).join(), /0 comes after 1/));
test("what belongs to another room is not missed", () => assert.deepEqual(faults("other", [], [writer(0)], "!other"), []));
