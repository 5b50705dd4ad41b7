// The steps of a story: each is printed as it passes or fails, and counted. Every wait is bounded.

import process from "node:process";

/** The longest one wait inside a step may take. Generous: CI machines are slow and shared. */
export const WAIT_SECONDS_MAX = Number(process.env.WAIT_SECONDS_MAX ?? 60);
/** The longest a step of several waits may take, so that the wait that failed is the one that is named. */
const STEP_SECONDS_MAX = 3 * WAIT_SECONDS_MAX;

/** Rejects with `what` in words if `promise` is not settled in time. */
export function within(seconds, what, promise) {
    let timer;
    const tooLate = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what}: not within ${seconds} s`)), seconds * 1000);
    });
    return Promise.race([promise, tooLate]).finally(() => clearTimeout(timer));
}

/** Throws unless `holds`; the message says what should have been so. */
export function must(holds, what) {
    if (!holds) throw new Error(what);
}

/** A step others build on has failed: the rest of the story cannot be told. */
class CannotGoOn extends Error {}

export class Steps {
    passed = 0;
    failed = 0;

    /** Runs one step. A failure is printed and counted, and the story goes on. */
    async step(name, run, secondsMax = STEP_SECONDS_MAX) {
        const began = performance.now();
        try {
            const result = await within(secondsMax, name, run());
            this.passed += 1;
            console.log(`ok - ${name} (${Math.round(performance.now() - began)} ms)`);
            return result;
        } catch (error) {
            this.failed += 1;
            console.log(`not ok - ${name}\n    ${describe(error)}`);
            return undefined;
        }
    }

    /** Runs a step that the later ones need; without it the story ends here. */
    async need(name, run, secondsMax = STEP_SECONDS_MAX) {
        const failedBefore = this.failed;
        const result = await this.step(name, run, secondsMax);
        if (this.failed > failedBefore) throw new CannotGoOn(name);
        return result;
    }

    /** Tells a story, prints the true count and ends the process with 0 only if every step passed. */
    static async tell(title, story) {
        const steps = new Steps();
        console.log(`# ${title}`);
        let whole = true;
        try {
            await story(steps);
        } catch (error) {
            whole = false;
            if (error instanceof CannotGoOn) console.log(`# the rest needs this step: ${error.message}`);
            else {
                steps.failed += 1;
                console.log(`not ok - the story itself\n    ${describe(error)}`);
            }
        }
        console.log(`# ${title}: ${steps.passed} passed, ${steps.failed} failed${whole ? "" : ", not told to the end"}`);
        process.exit(whole && steps.failed === 0 ? 0 : 1);
    }
}

function describe(error) {
    const said = error?.errcode ? `${error.httpStatus ?? ""} ${error.errcode} ${error.data?.error ?? ""}` : undefined;
    return [said, error?.stack ?? String(error)].filter(Boolean).join("\n").split("\n").slice(0, 8).join("\n    ");
}
