// What both browser tests need.
import assert from 'node:assert/strict';

/** Chromium without a screen, with a microphone of its own making, and with WebRTC over loopback. */
export const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
  '--autoplay-policy=no-user-gesture-required', '--disable-features=WebRtcHideLocalIpsWithMdns', '--allow-loopback-in-peer-connection'];
const PATIENCE_MS = 20_000;

/** Look until `check` says something true, and return that. */
export async function until(what, check, patienceMs = PATIENCE_MS) {
  const end = Date.now() + patienceMs;
  let last;
  do {
    last = await check();
    if (last) return last;
    await new Promise(resolve => setTimeout(resolve, 100));
  } while (Date.now() < end);
  assert.fail('never happened: ' + what);
}
