// Two people in two real Chromium browsers join a voice room through /voice/check and hear each other.
//
//   VOICE_URL=http://127.0.0.1:8090 HOMESERVER_URL=http://127.0.0.1:8008 npm test
//
// VOICE_URL serves the page and the WebSocket, HOMESERVER_URL (default: the same) the Matrix client API with open
// registration, or with REG_SECRET the registration by shared secret. CHROMIUM: the browser's path. SCREENSHOTS: a folder.
// RESTART: a command that kills the voice service and starts it again; without it that test is left out.
// Each page sends a tone made in the page; the other page looks for that frequency in what it receives.
import assert from 'node:assert/strict';
import { execSync } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { FLAGS, until } from './support.mjs';

const VOICE_URL = process.env.VOICE_URL ?? 'http://127.0.0.1:8008';
const HOMESERVER_URL = process.env.HOMESERVER_URL ?? VOICE_URL;
const LEAVE_MS = 15_000;
// The sender's tone is at -8 dB; silence is below -100 dB.
const AUDIBLE_DB = -45, SILENT_DB = -75;
const CALL_MEMBER = 'org.matrix.msc3401.call.member';

async function ask(method, path, body, token) {
  const reply = await fetch(HOMESERVER_URL + path, { method, body: body && JSON.stringify(body),
    headers: { 'Content-Type': 'application/json', ...(token && { Authorization: 'Bearer ' + token }) } });
  return { status: reply.status, json: await reply.json() };
}

async function register(name) {
  const username = name + '-' + randomBytes(4).toString('hex'), password = randomBytes(12).toString('hex');
  const secret = process.env.REG_SECRET;
  if (secret) {
    const { json: { nonce } } = await ask('GET', '/_synapse/admin/v1/register');
    const mac = createHmac('sha1', secret).update([nonce, username, password, 'notadmin'].join('\0')).digest('hex');
    const reply = await ask('POST', '/_synapse/admin/v1/register', { nonce, username, password, admin: false, mac });
    assert.equal(reply.status, 200, JSON.stringify(reply.json));
    return { username, password, token: reply.json.access_token, userId: reply.json.user_id };
  }
  const first = await ask('POST', '/_matrix/client/v3/register', { username, password });
  const reply = first.status === 401
    ? await ask('POST', '/_matrix/client/v3/register', { username, password, auth: { type: 'm.login.dummy', session: first.json.session } }) : first;
  assert.equal(reply.status, 200, JSON.stringify(reply.json));
  return { username, password, token: reply.json.access_token, userId: reply.json.user_id };
}

/** A browser of its own, so that it can be killed like one. */
async function browserOf(user, hz) {
  const server = await chromium.launchServer({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS, headless: true });
  const browser = await chromium.connect(server.wsEndpoint());
  const page = await (await browser.newContext({ permissions: ['microphone'], viewport: { width: 900, height: 820 } })).newPage();
  const faults = [];
  page.on('pageerror', error => faults.push(error.message));
  // The page asks how one registers; that the answer is 401 is how the server says it.
  page.on('console', message => message.type() === 'error' && !/status of 401/.test(message.text()) && faults.push(message.text()));
  await page.goto(VOICE_URL + '/voice/check');
  if (hz) await page.evaluate(hz => window.voiceCheck.useTone(hz), hz);
  const enter = options => page.evaluate(options => window.voiceCheck.enter(options),
    { homeserver: HOMESERVER_URL, user: user.username, password: user.password, ...options });
  return { server, browser, page, faults, enter, user };
}

const heard = (side, hz) => side.page.evaluate(hz => window.voiceCheck.heard(hz), hz);
const hears = (side, hz) => until(`${side.user.username} hears ${hz} Hz`, async () => (await heard(side, hz)) > AUDIBLE_DB);
const quiet = (side, hz) => until(`${side.user.username} no longer hears ${hz} Hz`, async () => (await heard(side, hz)) < SILENT_DB);
const state = side => side.page.evaluate(() => window.voiceCheck.state());
const news = (side, method) => side.page.evaluate(method => window.voiceCheck.news(method), method);

/** The devices in the call according to the room's state, seen with `token`. */
async function membersInState(token, roomId) {
  const { json } = await ask('GET', `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/state`, undefined, token);
  return json.filter(event => event.type === CALL_MEMBER && event.content.application).map(event => event.sender);
}

async function shoot(side, name) {
  if (process.env.SCREENSHOTS) await side.page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png` });
}

let alice, bob, roomId;

before(async () => {
  alice = await browserOf(await register('alice'), 440);
  bob = await browserOf(await register('bob'), 880);
});

after(async () => {
  for (const side of [alice, bob]) await side?.server.kill();
});

test('a page makes a voice room, another joins it, and each hears the tone of the other', async () => {
  await shoot(alice, 'entrance');
  ({ roomId } = await alice.enter({ create: true, name: 'Tea kitchen' }));
  await bob.enter({ room: roomId });

  await Promise.all([hears(alice, 880), hears(bob, 440)]);

  assert.ok(await heard(alice, 440) < AUDIBLE_DB, 'Alice does not hear herself');
  assert.deepEqual((await state(alice)).people.map(p => p.user_id).sort(), [alice.user.userId, bob.user.userId].sort());
});

test('both stand in the room state as members of the call', async () => {
  const members = await until('two memberships', async () => {
    const members = await membersInState(alice.user.token, roomId);
    return members.length === 2 && members;
  });

  assert.deepEqual(members.sort(), [alice.user.userId, bob.user.userId].sort());
});

test('who speaks when someone joins has a ring there, and starting to speak is told', async () => {
  const { me } = await state(alice);
  const started = async () => (await news(bob, 'speaking')).filter(news => news.participant_id === me && news.state === 'started').length;

  await until('the ring is drawn', async () => await bob.page.locator('#people li.speaking').count() === 2);
  await shoot(bob, 'call');
  await bob.page.emulateMedia({ colorScheme: 'dark' });
  await shoot(bob, 'call-dark');
  const before = await started();
  await alice.page.click('#mute');
  await until('no ring for Alice', async () => await bob.page.locator('#people li.speaking').count() === 1);
  await alice.page.click('#mute');
  await until('Bob is told that Alice speaks', async () => await started() > before);
});

test('mute silences, and unmute lets the tone through again', async () => {
  await alice.page.click('#mute');
  await quiet(bob, 440);
  await until('Bob sees that Alice is muted', () => bob.page.locator('#people li.muted').count());
  await hears(alice, 880);

  await alice.page.click('#mute');
  await hears(bob, 440);
});

test('a moderator mutes someone for everyone', async () => {
  const bobsId = (await state(bob)).me;
  const call = (side, method, params) => side.page.evaluate(([method, params]) =>
    window.voiceCheck.call(method, params).catch(error => ({ code: error.code })), [method, params]);

  const refused = await call(bob, 'mute', { participant_id: (await state(alice)).me, kind: 'server' });
  await call(alice, 'mute', { participant_id: bobsId, kind: 'server' });
  await quiet(alice, 880);
  await until('Bob is told', async () => (await news(bob, 'muted_by')).length);
  await call(alice, 'unmute', { participant_id: bobsId, kind: 'server' });
  await hears(alice, 880);

  assert.equal(refused.code, -32003);
});

test('deafened means hearing nothing', async () => {
  await bob.page.click('#deafen');
  await quiet(bob, 440);
  await bob.page.click('#deafen');
  await hears(bob, 440);
});

test('the page shows how the connection does', async () => {
  const figures = await alice.page.evaluate(() => window.voiceCheck.figures());
  const server = await alice.page.evaluate(() => window.voiceCheck.call('stats', {}));

  assert.ok(figures.packets_sent > 50 && figures.packets_received > 50, JSON.stringify(figures));
  assert.ok(figures.rtt_ms >= 0 && figures.rtt_ms < 1000);
  assert.ok(server.connected && server.packets_in > 50 && server.packets_out > 50, JSON.stringify(server));
});

test('a right taken away in the room state takes effect within a second or so', async () => {
  const path = `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/state/m.room.power_levels`;
  const { json: levels } = await ask('GET', path, undefined, alice.user.token);
  const withSpeak = level => ({ ...levels, events: { ...levels.events, 'org.voicechat.voice.speak': level } });

  const asked = Date.now();
  const put = await ask('PUT', path, withSpeak(50), alice.user.token);
  assert.equal(put.status, 200, JSON.stringify(put.json));
  await until('Bob may not speak', async () => (await news(bob, 'muted_by')).some(news => news.server_muted && !news.user_id));
  const tookMs = Date.now() - asked;
  await quiet(alice, 880);
  await ask('PUT', path, withSpeak(0), alice.user.token);
  await hears(alice, 880);

  assert.ok(tookMs < 2000, `took ${tookMs} ms`);
});

test('pages find back together when the voice service was killed', { skip: !process.env.RESTART }, async () => {
  const before = (await state(bob)).me;
  execSync(process.env.RESTART, { stdio: 'ignore' });

  await until('Bob has a new place', async () => (await state(bob)).me !== before);
  await Promise.all([hears(alice, 880), hears(bob, 440)]);
  await until('both stand in the room state', async () => (await membersInState(alice.user.token, roomId)).length === 2);
  alice.faults.length = 0; // A refused connection is told on the console.
});

test('a killed page leaves the call and the room state in time, and Alice sees it', async () => {
  const killed = Date.now();
  await bob.server.kill();

  await until('Bob is gone from the state', async () =>
    !(await membersInState(alice.user.token, roomId)).includes(bob.user.userId), LEAVE_MS);
  const tookMs = Date.now() - killed;
  await until('Bob is gone from the page', async () => (await state(alice)).people.length === 1);
  assert.equal((await news(alice, 'user_left')).at(-1).reason, 'connection_lost');
  console.log(`the killed page left the room state after ${tookMs} ms`);
});

test('a page that freezes, as when its network is gone, leaves the room state in time too', async () => {
  const carol = await browserOf(await register('carol'), 660);
  try {
    await carol.enter({ room: roomId });
    await hears(alice, 660);
    const frozen = Date.now();
    // The whole process group: the browser, its network service and its renderers.
    process.kill(-carol.server.process().pid, 'SIGSTOP');

    await until('Carol is gone from the state', async () =>
      !(await membersInState(alice.user.token, roomId)).includes(carol.user.userId), LEAVE_MS);
    console.log(`the frozen page left the room state after ${Date.now() - frozen} ms`);
  } finally {
    await carol.server.kill();
  }
});

test('leaving clears the membership, and no page had a fault', async () => {
  await alice.page.click('#leave');

  await until('nobody is in the call', async () => (await membersInState(alice.user.token, roomId)).length === 0);
  assert.deepEqual(alice.faults, []);
});
