// Encrypted attachments as the specification has them: AES-256-CTR, a JSON Web Key, SHA-256 of the ciphertext.

import { randomBytes, webcrypto } from "node:crypto";
import { must } from "./steps.mjs";

const unpadded = (bytes) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");
const digest = async (bytes) => unpadded(await webcrypto.subtle.digest("SHA-256", bytes));

/** Encrypts and uploads `bytes`; returns the content of an `m.file` message. */
export async function uploadEncrypted(device, bytes, body) {
    const key = await webcrypto.subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
    const iv = Buffer.concat([randomBytes(8), Buffer.alloc(8)]);
    const ciphertext = await webcrypto.subtle.encrypt({ name: "AES-CTR", counter: iv, length: 64 }, key, bytes);
    const blob = new Blob([ciphertext]);
    const { content_uri: url } = await device.client.uploadContent(blob, { type: "application/octet-stream", includeFilename: false });
    const { k } = await webcrypto.subtle.exportKey("jwk", key);
    const jwk = { kty: "oct", key_ops: ["encrypt", "decrypt"], alg: "A256CTR", ext: true, k };
    const file = { v: "v2", url, key: jwk, iv: unpadded(iv), hashes: { sha256: await digest(ciphertext) } };
    return { msgtype: "m.file", body, filename: body, info: { size: bytes.length, mimetype: "application/pdf" }, file };
}

/** Downloads and decrypts the file of a message, checking its hash. */
export async function downloadDecrypted(device, content) {
    const { url, key: jwk, iv, hashes } = content.file;
    const http = device.client.mxcUrlToHttp(url, undefined, undefined, undefined, false, true, true);
    const response = await fetch(http, { headers: { authorization: `Bearer ${device.token}` } });
    must(response.ok, `download of ${url}: ${response.status}`);
    const ciphertext = new Uint8Array(await response.arrayBuffer());
    must((await digest(ciphertext)) === hashes.sha256, "the hash of the downloaded file is the one in the event");
    const key = await webcrypto.subtle.importKey("jwk", jwk, "AES-CTR", false, ["decrypt"]);
    const plain = await webcrypto.subtle.decrypt({ name: "AES-CTR", counter: Buffer.from(iv, "base64"), length: 64 }, key, ciphertext);
    return Buffer.from(plain);
}
