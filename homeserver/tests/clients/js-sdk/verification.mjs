// Verification by short authentication string between two devices, as two people would do it.

import { CryptoEvent, VerificationPhase, VerificationRequestEvent, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";
import { must, WAIT_SECONDS_MAX, within } from "./steps.mjs";

/** Runs the whole dialogue; `ask` starts it on the asking device and gives its request. */
export async function verifyBySas(asking, answering, ask) {
    const received = firstRequest(answering, asking.userId);
    const request = await ask();
    const answer = await within(WAIT_SECONDS_MAX, "the verification request", received);
    await answer.accept();
    await reached(request, VerificationPhase.Ready);

    const ours = await request.startVerification("m.sas.v1");
    await reached(answer, VerificationPhase.Started);
    const theirs = answer.verifier;
    must(theirs, "the answering side has a verifier");

    const [ourEnd, theirEnd] = [bothWays(ours), bothWays(theirs)];
    const [ourSas, theirSas] = await Promise.all([ourEnd.shown, theirEnd.shown]);
    const words = (sas) => sas.sas.emoji.map(([, word]) => word).join(" ");
    must(words(ourSas) === words(theirSas), `the same emoji on both sides: ${words(ourSas)} / ${words(theirSas)}`);
    await Promise.all([ourSas.confirm(), theirSas.confirm()]);
    await Promise.all([ourEnd.finished, theirEnd.finished]);
    await Promise.all([reached(request, VerificationPhase.Done), reached(answer, VerificationPhase.Done)]);
}

function firstRequest(device, fromUserId) {
    return new Promise((resolve) => {
        const look = (request) => {
            if (request.otherUserId !== fromUserId || request.initiatedByMe) return;
            device.client.off(CryptoEvent.VerificationRequestReceived, look);
            resolve(request);
        };
        device.client.on(CryptoEvent.VerificationRequestReceived, look);
    });
}

function bothWays(verifier) {
    const shown = new Promise((resolve) => {
        const already = verifier.getShowSasCallbacks();
        if (already) resolve(already);
        else verifier.once(VerifierEvent.ShowSas, resolve);
    });
    const finished = verifier.verify();
    const failed = finished.then(() => new Promise(() => {}));
    return { shown: within(WAIT_SECONDS_MAX, "the emoji", Promise.race([shown, failed])), finished };
}

function reached(request, phase) {
    let look;
    const there = new Promise((resolve, reject) => {
        look = () => {
            if (request.phase === VerificationPhase.Cancelled) {
                reject(new Error(`verification was cancelled: ${request.cancellationCode} by ${request.cancellingUserId}`));
            }
            if (request.phase >= phase) resolve();
        };
        request.on(VerificationRequestEvent.Change, look);
        look();
    });
    return within(WAIT_SECONDS_MAX, `verification phase ${VerificationPhase[phase]}`, there).finally(() => request.off(VerificationRequestEvent.Change, look));
}
