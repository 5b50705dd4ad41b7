// The story's chapters, told alike on one server and across several: only where the people live differs.
//
// `people` is { alice: [server, name], bob: [server, name], … }; every person beyond the two has one device and joins in.

import { randomBytes } from "node:crypto";
import { Device } from "./device.mjs";
import { downloadDecrypted, uploadEncrypted } from "./encrypted-file.mjs";
import { must } from "./steps.mjs";
import { verifyBySas } from "./verification.mjs";

const ENCRYPTION = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
const FILE_BYTES = 300_000;

const relatesTo = (rel_type, event_id, more) => ({ "m.relates_to": { rel_type, event_id, ...more } });

/** Keys, devices and trust: two devices each of alice and bob, cross-signed, with secret storage and key backup. */
export async function gather(steps, { alice, bob, others = [] }) {
    const a1 = await steps.need("alice logs in on her laptop and it syncs", async () => (await Device.login("alice's laptop", alice.server, alice)).start());
    const b1 = await steps.need("bob logs in on his laptop and it syncs", async () => (await Device.login("bob's laptop", bob.server, bob)).start());
    await steps.step("bob's tablet asks for a refresh token, gets a new access token for it, and logs out", async () => {
        const tablet = await Device.login("bob's tablet", bob.server, bob, { refresh: true });
        const { refresh_token: refreshToken, expires_in_ms: lifetimeMs } = tablet.loginAnswer;
        must(refreshToken && lifetimeMs > 0, "the login answer has a refresh token and a lifetime");
        const fresh = await tablet.client.refreshToken(refreshToken);
        must(fresh.access_token !== tablet.token, "the access token is a new one");
        tablet.client.setAccessToken(fresh.access_token);
        must((await tablet.client.whoami()).device_id === tablet.deviceId, "the new token belongs to the same device");
        await tablet.client.logout();
    });

    const recoveryKey = await steps.need("alice bootstraps cross-signing, secret storage and key backup", () => a1.bootstrap());
    await steps.step("her laptop has the backup switched on and takes itself for verified", async () => {
        await a1.until("an active key backup", () => a1.crypto.getActiveSessionBackupVersion());
        await a1.until("a verified laptop", () => a1.trusts(a1));
    });
    const bobRecoveryKey = await steps.need("bob bootstraps too", () => b1.bootstrap());

    const a2 = await steps.need("alice logs in on her phone, which is not verified yet", async () => {
        const phone = await (await Device.login("alice's phone", alice.server, alice)).start();
        await a1.until("the phone in the device list", async () => (await a1.crypto.getUserDeviceInfo([alice.id])).get(alice.id)?.has(phone.deviceId));
        must(!(await a1.trusts(phone)), "a phone nobody verified is not trusted");
        return phone;
    });
    await steps.need("the phone asks, the laptop answers, and both show the same emoji", async () => {
        await knowsItself(a2);
        await verifyBySas(a2, a1, () => a2.crypto.requestOwnUserVerification());
    });
    await steps.step("phone and laptop trust each other by cross-signing", async () => {
        await a1.until("a trusted phone", () => a1.trusts(a2));
        await a2.until("a trusted laptop", () => a2.trusts(a1));
    });
    await steps.step("the laptop hands the phone the private cross-signing keys and the backup key", async () => {
        await a2.until("the private keys", async () => {
            const status = await a2.crypto.getCrossSigningStatus();
            const cached = status.privateKeysCachedLocally;
            return cached.masterKey && cached.selfSigningKey && cached.userSigningKey;
        });
        await a2.until("the backup key", () => a2.crypto.getSessionBackupPrivateKey());
    });
    const b2 = await steps.need("bob's phone verifies itself with the recovery key", async () => {
        const phone = await (await Device.login("bob's phone", bob.server, bob)).start();
        phone.recoveryKey = bobRecoveryKey;
        await knowsItself(phone);
        await phone.crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: phone.authenticate });
        await b1.until("a trusted phone", () => b1.trusts(phone));
        return phone;
    });
    const more = [];
    for (const person of others) {
        more.push(await steps.need(`${person.name} logs in on ${person.server.baseUrl}`, async () => (await Device.login(person.name, person.server, person)).start()));
    }
    return { a1, a2, b1, b2, others: more, recoveryKey };
}

/** Verifying oneself needs the public identity, which comes with the first keys query. */
const knowsItself = (device) => device.until("the own identity", () => device.crypto.userHasCrossSigningKeys(device.userId, true));

/** One encrypted room with everybody in it, messages both ways. Returns the room's id and the ids of what was said. */
export async function talk(steps, cast) {
    const { a1, a2, b1, b2, others } = cast;
    const guests = [b1, ...others];
    const everywhere = [a1, a2, b1, b2, ...others];
    const roomId = await steps.need("alice makes an encrypted room and invites the others", async () => {
        const invite = guests.map((guest) => guest.userId);
        const room = await a1.client.createRoom({ preset: "private_chat", name: "Tea", invite, initial_state: [ENCRYPTION] });
        return room.room_id;
    });
    await steps.need("they see the invitation and join", async () => {
        for (const guest of guests) {
            await guest.until("the invitation", () => guest.room(roomId)?.getMyMembership() === "invite");
            await guest.client.joinRoom(roomId);
        }
        for (const device of everywhere) {
            await device.until("everyone joined", () => device.room(roomId)?.getJoinedMemberCount() === guests.length + 1);
            await device.until("encryption", () => device.crypto.isEncryptionEnabledInRoom(roomId));
        }
    });
    const said = [];
    const hear = async (sender, body) => {
        const eventId = await sender.say(roomId, body);
        for (const device of everywhere) {
            const event = await device.readable(roomId, eventId);
            must(event.getContent().body === body, `${device.name} reads "${event.getContent().body}", wanted "${body}"`);
            must(event.isEncrypted() && event.getWireType() === "m.room.encrypted", "the message was encrypted on its way");
        }
        said.push(eventId);
    };
    await steps.need("alice's laptop speaks, every other device reads it", () => hear(a1, "hello from the laptop"));
    await steps.need("bob's phone answers, every other device reads it", () => hear(b2, "hello from bob's phone"));
    await steps.step("alice's phone and bob's laptop speak too", async () => {
        await hear(a2, "hello from the phone");
        await hear(b1, "hello from bob's laptop");
    });
    for (const other of others) await steps.step(`${other.name} speaks, everyone reads it`, () => hear(other, `hello from ${other.name}`));
    await steps.step("all devices have these messages in the order of their room", async () => {
        const orders = everywhere.map((device) => device.room(roomId).getLiveTimeline().getEvents().map((event) => event.getId()).filter((id) => said.includes(id)).join(" "));
        must(new Set(orders).size === 1 && orders[0].split(" ").length === said.length, `one order everywhere: ${orders.join(" | ")}`);
    });
    return { roomId, said };
}

/** Alice and Bob verify each other in the room, and trust each other's devices afterwards. */
export async function trust(steps, { a1, a2, b1, b2 }, { roomId }) {
    await steps.step("alice and bob verify each other in the room", () => verifyBySas(a1, b1, () => a1.crypto.requestVerificationDM(b1.userId, roomId)));
    await steps.step("each takes every device of the other for verified", async () => {
        for (const [one, other] of [[a1, b1], [a1, b2], [a2, b1], [b1, a1], [b1, a2], [b2, a2]]) {
            await one.until(`trust in ${other.name}`, () => one.trusts(other));
        }
    });
}

/** Edit, reaction, redaction, thread, receipts, typing, unread counts. */
export async function converse(steps, { a1, a2, b1, b2 }, { roomId, said }) {
    await steps.step("alice edits a message, bob reads the new text", async () => {
        const original = await a1.say(roomId, "tee?");
        await b1.readable(roomId, original);
        const newContent = { msgtype: "m.text", body: "tea?" };
        const edit = await a1.say(roomId, "* tea?", { "m.new_content": newContent, ...relatesTo("m.replace", original) });
        const event = await b1.until("the edit", () => b1.event(roomId, original)?.replacingEventId() === edit && b1.event(roomId, original));
        must(event.getContent().body === "tea?", `bob reads "${event.getContent().body}"`);
        const single = await b1.server.request("GET", `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/event/${encodeURIComponent(original)}`, { token: b1.token });
        must(single.unsigned?.["m.relations"]?.["m.replace"]?.event_id === edit, "the server bundles the edit with the original");
        said.push(original, edit);
    });
    const reaction = await steps.step("bob reacts, alice sees the reaction on her message", async () => {
        const eventId = await b1.send(roomId, "m.reaction", relatesTo("m.annotation", said[0], { key: "🫖" }));
        await a1.until("the reaction", () => {
            const set = a1.room(roomId).relations.getChildEventsForEvent(said[0], "m.annotation", "m.reaction");
            return set?.getRelations().some((event) => event.getId() === eventId && event.getRelation().key === "🫖");
        });
        const { chunk } = await a1.server.request("GET", `/_matrix/client/v1/rooms/${encodeURIComponent(roomId)}/relations/${encodeURIComponent(said[0])}/m.annotation`, { token: a1.token });
        must(chunk.some((event) => event.event_id === eventId), "the server lists the reaction among the relations");
        return eventId;
    });
    await steps.step("bob takes the reaction back", async () => {
        await b1.client.redactEvent(roomId, reaction);
        await a1.until("no reaction", () => {
            const set = a1.room(roomId).relations.getChildEventsForEvent(said[0], "m.annotation", "m.reaction");
            return !set?.getRelations().some((event) => event.getId() === reaction && !event.isRedacted());
        });
    });
    await steps.step("alice redacts a message, and its text is gone everywhere", async () => {
        const eventId = await a1.say(roomId, "I should not have said this");
        for (const device of [a2, b1, b2]) await device.readable(roomId, eventId);
        await a1.client.redactEvent(roomId, eventId, undefined, { reason: "second thoughts" });
        for (const device of [a1, a2, b1, b2]) {
            const event = await device.until("the redaction", () => device.event(roomId, eventId)?.isRedacted() && device.event(roomId, eventId));
            must(Object.keys(event.getContent()).length === 0, `${device.name} has no content left`);
        }
        const stored = await b1.server.request("GET", `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/event/${encodeURIComponent(eventId)}`, { token: b1.token });
        must(stored.content.ciphertext === undefined && stored.unsigned.redacted_because, "the server keeps nothing but the redacted form");
    });
    const thread = await steps.step("bob opens a thread, alice answers in it", async () => {
        const root = said[0];
        const first = await b1.say(roomId, "about the laptop", relatesTo("m.thread", root));
        const open = (device, count) => device.until(`a thread of ${count}`, () => {
            const found = device.room(roomId).getThread(root);
            return found?.length === count && found;
        });
        await open(a1, 1);
        await a1.readable(roomId, first);
        const second = await a1.say(roomId, "what about it?", relatesTo("m.thread", root, { is_falling_back: true, "m.in_reply_to": { event_id: first } }));
        await open(b1, 2);
        await b1.readable(roomId, second);
        const { chunk } = await b1.server.request("GET", `/_matrix/client/v1/rooms/${encodeURIComponent(roomId)}/threads`, { token: b1.token });
        const listed = chunk.find((event) => event.event_id === root)?.unsigned["m.relations"]["m.thread"];
        must(listed?.count === 2 && listed.latest_event.event_id === second, `the server lists the thread: ${JSON.stringify(listed?.count)}`);
        return { root, second };
    });
    await steps.step("bob reads the thread, and both of alice's devices see his receipt in it", async () => {
        await b1.client.sendReadReceipt(await b1.readable(roomId, thread.second));
        await a1.until("bob's receipt in the thread", () => a1.room(roomId).getThread(thread.root).getEventReadUpTo(b1.userId) === thread.second);
        await a2.until("the same on the phone", () => a2.room(roomId).getThread(thread.root)?.getEventReadUpTo(b1.userId) === thread.second);
    });
    await steps.step("bob has an unread message, reads it, and has none", async () => {
        const eventId = await a1.say(roomId, "have you read this?");
        await b2.readable(roomId, eventId);
        await b2.until("an unread message", () => b2.room(roomId).getUnreadNotificationCount("total") > 0);
        await b1.client.sendReadReceipt(await b1.readable(roomId, eventId), "m.read");
        await a1.until("bob's receipt", () => a1.room(roomId).getReadReceiptForUserId(b1.userId)?.eventId === eventId);
        await b2.until("nothing unread on the other device", () => b2.room(roomId).getUnreadNotificationCount("total") === 0);
        await b1.client.setRoomReadMarkers(roomId, eventId);
        await b2.until("the read marker", () => b2.room(roomId).getAccountData("m.fully_read")?.getContent().event_id === eventId);
    });
    await steps.step("a private receipt clears the count and is nobody else's business", async () => {
        const [hidden, open] = [await a1.say(roomId, "read in private"), await a1.say(roomId, "read in public")];
        await b1.client.sendReadReceipt(await b1.readable(roomId, hidden), "m.read.private");
        await b1.client.sendReadReceipt(await b1.readable(roomId, open), "m.read");
        await a1.until("the public receipt", () => a1.room(roomId).getReadReceiptForUserId(b1.userId)?.eventId === open);
        const privately = a1.room(roomId).findEventById(hidden);
        must(!a1.room(roomId).getReceiptsForEvent(privately).some((receipt) => receipt.type === "m.read.private"), "alice never sees a private receipt");
    });
    await steps.step("bob types, alice sees it, bob stops, alice sees that", async () => {
        await b1.client.sendTyping(roomId, true, 20_000);
        await a1.until("typing", () => a1.room(roomId).getMember(b1.userId).typing);
        await b1.client.sendTyping(roomId, false, 0);
        await a1.until("no typing", () => !a1.room(roomId).getMember(b1.userId).typing);
    });
}

/** An encrypted file, up on alice's server and down on bob's. */
export async function exchangeFile(steps, { a1, b1, b2 }, { roomId }) {
    await steps.step("alice sends an encrypted file, bob downloads and decrypts the same bytes", async () => {
        const bytes = randomBytes(FILE_BYTES);
        const eventId = await a1.send(roomId, "m.room.message", await uploadEncrypted(a1, bytes, "report.pdf"));
        for (const device of [b1, b2]) {
            const event = await device.readable(roomId, eventId);
            must(bytes.equals(await downloadDecrypted(device, event.getContent())), `${device.name} gets the file back`);
        }
    });
    await steps.step("nobody downloads it without a token", async () => {
        const { content_uri: uri } = await a1.client.uploadContent(new Blob(["x"]), { type: "text/plain", includeFilename: false });
        const response = await fetch(a1.client.mxcUrlToHttp(uri, undefined, undefined, undefined, false, true, true));
        must(response.status === 401 || response.status === 404, `answered ${response.status}`);
    });
}

/** A new device gets the history back from the key backup, is trusted, and is gone again after logout. */
export async function restore(steps, { a1, b1, recoveryKey }, alice, { roomId, said }) {
    await steps.need("alice's room keys are all in the backup", async () => {
        await a1.until("an empty queue of the backup", async () => {
            const { count } = await a1.server.request("GET", "/_matrix/client/v3/room_keys/version", { token: a1.token });
            const local = new Set((await a1.crypto.exportRoomKeys()).map((key) => key.session_id));
            return count >= local.size;
        });
    });
    const a3 = await steps.need("alice logs in on a new device, which cannot read what was said", async () => {
        const device = await (await Device.login("alice's new device", alice.server, alice)).start();
        const event = await device.until("the old message", () => device.event(roomId, said[0])?.isDecryptionFailure() && device.event(roomId, said[0]));
        must(event.getWireType() === "m.room.encrypted", "it is an encrypted message");
        return device;
    });
    await steps.need("with the recovery key it restores the backup and reads everything", async () => {
        a3.recoveryKey = recoveryKey;
        await a3.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        const restored = await a3.crypto.restoreKeyBackup();
        must(restored.total > 0 && restored.imported === restored.total, `imported ${restored.imported} of ${restored.total}`);
        for (const eventId of said) await a3.readable(roomId, eventId);
    });
    await steps.step("it signs itself, and bob trusts it without being asked", async () => {
        await knowsItself(a3);
        await a3.crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: a3.authenticate });
        await a1.until("trust of the laptop", () => a1.trusts(a3));
        await b1.until("trust of bob", () => b1.trusts(a3));
    });
    await steps.step("it reads and writes like the others", async () => {
        const eventId = await a3.say(roomId, "back again");
        await b1.readable(roomId, eventId);
        await a3.readable(roomId, await b1.say(roomId, "welcome back"));
    });
    await steps.step("it logs out: its token is dead and bob's device list forgets it", async () => {
        const token = a3.token;
        await a3.client.logout(true);
        const answer = await a3.server.fetch("GET", "/_matrix/client/v3/account/whoami", { token });
        must(answer.status === 401 && (await answer.json()).errcode === "M_UNKNOWN_TOKEN", `whoami answered ${answer.status}`);
        await b1.until("one device less", async () => {
            const devices = (await b1.crypto.getUserDeviceInfo([alice.id])).get(alice.id);
            return devices && !devices.has(a3.deviceId);
        });
    });
}

export async function part(cast) {
    for (const device of [cast.a1, cast.a2, cast.b1, cast.b2, ...cast.others]) device.stop();
}
