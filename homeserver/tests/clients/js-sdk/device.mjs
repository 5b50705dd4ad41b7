// One device of one user: a matrix-js-sdk client with Rust crypto in memory, and waits on what it sees.

import * as sdk from "matrix-js-sdk";
import { CryptoEvent, decodeRecoveryKey } from "matrix-js-sdk/lib/crypto-api/index.js";
import { logger } from "matrix-js-sdk/lib/logger.js";
import process from "node:process";
import { must, WAIT_SECONDS_MAX, within } from "./steps.mjs";

if (!process.env.SDK_LOG) {
    logger.setLevel?.("silent");
    // The SDK and its WebAssembly log through the console too; the story prints with console.log only.
    for (const level of ["debug", "info", "warn", "error", "trace"]) console[level] = () => {};
}

/** Whatever may change what a check looks at. */
const NEWS = [
    sdk.ClientEvent.Sync, sdk.ClientEvent.Event, sdk.ClientEvent.AccountData, sdk.ClientEvent.Room,
    sdk.RoomEvent.Timeline, sdk.RoomEvent.Receipt, sdk.RoomEvent.Redaction, sdk.RoomEvent.LocalEchoUpdated,
    sdk.RoomEvent.MyMembership, sdk.RoomEvent.AccountData, sdk.RoomEvent.UnreadNotifications,
    sdk.MatrixEventEvent.Decrypted, sdk.MatrixEventEvent.Replaced, sdk.RoomMemberEvent.Typing,
    sdk.RoomMemberEvent.Membership, sdk.RoomStateEvent.Events, sdk.ThreadEvent.New, sdk.ThreadEvent.Update,
    CryptoEvent.DevicesUpdated, CryptoEvent.KeysChanged, CryptoEvent.UserTrustStatusChanged, CryptoEvent.KeyBackupStatus,
    CryptoEvent.KeyBackupSessionsRemaining, CryptoEvent.KeyBackupDecryptionKeyCached, CryptoEvent.VerificationRequestReceived,
];

/** How long one /sync may wait: short, so that checks which no event announces still run now and then. */
const SYNC_WAIT_MS = 10_000;

export class Device {
    /** Secret storage keys by id, as a client keeps them while the user's recovery key is at hand. */
    #storageKeys = new Map();
    recoveryKey;

    constructor(name, server, user, login) {
        this.name = name;
        this.server = server;
        this.user = user;
        this.loginAnswer = login;
        this.client = sdk.createClient({
            baseUrl: server.baseUrl,
            userId: login.user_id,
            deviceId: login.device_id,
            accessToken: login.access_token,
            cryptoCallbacks: {
                cacheSecretStorageKey: (keyId, _info, key) => this.#storageKeys.set(keyId, key),
                getSecretStorageKey: async ({ keys }) => this.#storageKeyAmong(Object.keys(keys)),
            },
            verificationMethods: ["m.sas.v1"],
        });
    }

    /** Logs in with the password as a new device; `refresh` asks for a refresh token as well. */
    static async login(name, server, user, { refresh = false } = {}) {
        const login = await server.request("POST", "/_matrix/client/v3/login", {
            body: {
                type: "m.login.password",
                identifier: { type: "m.id.user", user: user.id },
                password: user.password,
                initial_device_display_name: name,
                ...(refresh && { refresh_token: true }),
            },
        });
        must(login.user_id === user.id, `logged in as ${login.user_id}, wanted ${user.id}`);
        return new Device(name, server, user, login);
    }

    get crypto() { return this.client.getCrypto(); }
    get userId() { return this.user.id; }
    get deviceId() { return this.loginAnswer.device_id; }
    get token() { return this.client.getAccessToken(); }

    async start() {
        await this.client.initRustCrypto({ useIndexedDB: false });
        await this.client.startClient({ initialSyncLimit: 100, threadSupport: true, pollTimeout: SYNC_WAIT_MS, pendingEventOrdering: "detached" });
        await this.until("the first sync", () => ["PREPARED", "SYNCING"].includes(this.client.getSyncState()));
        return this;
    }

    stop() { this.client.stopClient(); }

    /** Waits until `check` gives something true, looking again after each piece of news; returns what it gave. */
    async until(what, check, secondsMax = WAIT_SECONDS_MAX) {
        let stop;
        const seen = new Promise((resolve, reject) => {
            let looking = false;
            let again = false;
            const look = async () => {
                again = looking;
                if (looking) return;
                looking = true;
                try {
                    do {
                        again = false;
                        const found = await check();
                        if (found) return resolve(found);
                    } while (again);
                } catch (error) {
                    reject(error);
                } finally {
                    looking = false;
                }
            };
            stop = () => NEWS.forEach((event) => this.client.off(event, look));
            NEWS.forEach((event) => this.client.on(event, look));
            look();
        });
        return within(secondsMax, `${this.name} waits for ${what}`, seen).finally(stop);
    }

    room(roomId) { return this.client.getRoom(roomId); }
    event(roomId, eventId) {
        const room = this.room(roomId);
        return room?.findEventById(eventId);
    }

    /** The event once it is here in clear text. */
    readable(roomId, eventId, secondsMax = WAIT_SECONDS_MAX) {
        return this.until(`${eventId} in clear text`, () => {
            const event = this.event(roomId, eventId);
            return event && !event.isBeingDecrypted() && !event.isDecryptionFailure() && event.getType() !== "m.room.encrypted" && event;
        }, secondsMax);
    }

    /** The same for an event that a sync may have left out, because too much happened at once: pages back to it. */
    readableFurtherBack(roomId, eventId, secondsMax = WAIT_SECONDS_MAX) {
        return this.until(`${eventId} in clear text, also further back`, async () => {
            if (!this.event(roomId, eventId)) {
                const timeline = this.room(roomId).getLiveTimeline();
                await this.client.paginateEventTimeline(timeline, { backwards: true, limit: 100 });
            }
            const event = this.event(roomId, eventId);
            return event && !event.isBeingDecrypted() && !event.isDecryptionFailure() && event.getType() !== "m.room.encrypted" && event;
        }, secondsMax);
    }

    /**
     * Sends an event (encrypted if the room is) and returns its id.
     *
     * The SDK throws "not a local echo" when a sync shows it the event before the answer to the sending has
     * arrived and the event belongs to a thread. The event is sent all the same: it is found by its transaction.
     */
    async send(roomId, type, content) {
        const transaction = this.client.makeTxnId();
        try {
            return (await this.client.sendEvent(roomId, type, content, transaction)).event_id;
        } catch (error) {
            if (!/not a local echo/.test(error.message)) throw error;
            const room = this.room(roomId);
            const echo = await this.until(`the echo of transaction ${transaction} (${error.message})`, () => {
                const events = [...room.getLiveTimeline().getEvents(), ...room.getThreads().flatMap((thread) => thread.events)];
                return events.find((event) => event.getUnsigned().transaction_id === transaction);
            });
            return echo.getId();
        }
    }

    say(roomId, body, more = {}) { return this.send(roomId, "m.room.message", { msgtype: "m.text", body, ...more }); }

    /** Answers user-interactive authentication with the password, whatever session the server opens. */
    authenticate = async (makeRequest) => {
        try {
            return await makeRequest(null);
        } catch (error) {
            const session = error.data?.session;
            if (error.httpStatus !== 401 || !session) throw error;
            const identifier = { type: "m.id.user", user: this.userId };
            return makeRequest({ type: "m.login.password", identifier, password: this.user.password, session });
        }
    };

    /** Makes the user's cross-signing keys, secret storage and key backup; returns the recovery key a person would write down. */
    async bootstrap() {
        await this.crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: this.authenticate });
        const key = await this.crypto.createRecoveryKeyFromPassphrase();
        await this.crypto.bootstrapSecretStorage({ createSecretStorageKey: async () => key, setupNewSecretStorage: true, setupNewKeyBackup: true });
        return key.encodedPrivateKey;
    }

    async #storageKeyAmong(keyIds) {
        const known = keyIds.find((id) => this.#storageKeys.has(id));
        if (known) return [known, this.#storageKeys.get(known)];
        return this.recoveryKey ? [keyIds[0], decodeRecoveryKey(this.recoveryKey)] : null;
    }

    /** Whether this device takes `other` for verified by its owner's cross-signing. */
    async trusts(other) {
        const status = await this.crypto.getDeviceVerificationStatus(other.userId, other.deviceId);
        return status?.signedByOwner === true && status.crossSigningVerified === true;
    }
}
