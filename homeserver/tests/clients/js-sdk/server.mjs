// A homeserver as a plain HTTP client sees it: registration and raw requests, without the SDK.

import { createHmac, randomBytes } from "node:crypto";
import process from "node:process";

const REQUEST_SECONDS_MAX = 60;

/** The servers under test, from BASE_URLS (or BASE_URL), first one first. */
export function serversUnderTest() {
    const urls = (process.env.BASE_URLS ?? process.env.BASE_URL ?? "").split(/[\s,]+/).filter(Boolean);
    if (urls.length === 0) throw new Error("set BASE_URL, or BASE_URLS for several servers");
    const secrets = (process.env.REGISTRATION_SHARED_SECRETS ?? process.env.REGISTRATION_SHARED_SECRET ?? "").split(/[\s,]+/);
    return urls.map((url, index) => new Server(url.replace(/\/$/, ""), secrets[index] ?? secrets[0]));
}

/** A name no earlier run has used, so that a story can be told twice on one server. */
export const freshName = (name) => `${name}_${randomBytes(4).toString("hex")}`;

export class Server {
    constructor(baseUrl, sharedSecret) {
        this.baseUrl = baseUrl;
        this.sharedSecret = sharedSecret;
    }

    /** One JSON request; throws on any status but 2xx, with the Matrix error in the message. */
    async request(method, path, { body, token } = {}) {
        const response = await this.fetch(method, path, { body, token });
        const answer = await response.json();
        if (!response.ok) throw Object.assign(new Error(`${method} ${path}: ${response.status} ${JSON.stringify(answer)}`), { status: response.status, answer });
        return answer;
    }

    fetch(method, path, { body, token } = {}) {
        const headers = { ...(body && { "content-type": "application/json" }), ...(token && { authorization: `Bearer ${token}` }) };
        const signal = AbortSignal.timeout(REQUEST_SECONDS_MAX * 1000);
        return fetch(this.baseUrl + path, { method, headers, body: body && JSON.stringify(body), signal });
    }

    /** Registers through the shared secret endpoint that provisioning tools use. */
    async registerBySecret(name, password) {
        const path = "/_synapse/admin/v1/register";
        const { nonce } = await this.request("GET", path);
        const mac = createHmac("sha1", this.sharedSecret).update([nonce, name, password, "notadmin"].join("\0")).digest("hex");
        const answer = await this.request("POST", path, { body: { nonce, username: name, password, admin: false, mac } });
        return answer.user_id;
    }

    /** Registers as anyone may: the first answer is 401 with a session, the second request completes `m.login.dummy`. */
    async registerOpenly(name, password) {
        const path = "/_matrix/client/v3/register";
        const body = { username: name, password, inhibit_login: true };
        const first = await this.fetch("POST", path, { body });
        if (first.status !== 401) throw new Error(`register without auth answered ${first.status}, wanted 401`);
        const { session, flows } = await first.json();
        if (!flows.some((flow) => flow.stages.every((stage) => stage === "m.login.dummy"))) {
            throw new Error(`registration is not open: ${JSON.stringify(flows)}`);
        }
        const answer = await this.request("POST", path, { body: { ...body, auth: { type: "m.login.dummy", session } } });
        return answer.user_id;
    }
}
