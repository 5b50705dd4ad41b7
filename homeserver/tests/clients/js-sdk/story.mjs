// Two people, two devices each, on one server: everything encrypted clients do in their first week.
//
//   BASE_URL=http://localhost:8008 REGISTRATION_SHARED_SECRET=… node story.mjs
//
// Prints a line for each step and a true count; ends with 0 only if every step passed.
// WAIT_SECONDS_MAX bounds each wait (60); SDK_LOG=1 shows the SDK's own log.

import { converse, exchangeFile, gather, part, restore, talk, trust } from "./chapters.mjs";
import { freshName, serversUnderTest } from "./server.mjs";
import { must, Steps } from "./steps.mjs";

await Steps.tell(`js-sdk story on ${process.env.BASE_URL ?? process.env.BASE_URLS}`, async (steps) => {
    const [server] = serversUnderTest();
    await steps.need("the server says which versions it speaks", async () => {
        const { versions } = await server.request("GET", "/_matrix/client/versions");
        must(versions.includes("v1.11"), `the versions go up to authenticated media at least: ${versions.at(-1)}`);
    });
    const password = freshName("secret");
    const alice = await steps.need("alice is registered with the shared secret", async () => {
        const name = freshName("alice");
        return { server, name, password, id: await server.registerBySecret(name, password) };
    });
    const bob = await steps.need("bob registers openly", async () => {
        const name = freshName("bob");
        return { server, name, password, id: await server.registerOpenly(name, password) };
    });
    const cast = await gather(steps, { alice, bob });
    const conversation = await talk(steps, cast);
    await trust(steps, cast, conversation);
    await converse(steps, cast, conversation);
    await exchangeFile(steps, cast, conversation);
    await restore(steps, cast, alice, conversation);
    await part(cast);
});
