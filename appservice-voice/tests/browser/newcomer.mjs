// Two newcomers get from the address of the page to hearing each other, by what stands on the screen alone: labels and buttons.
//
//   VOICE_URL=http://127.0.0.1:8008 CLOSED_URL=http://127.0.0.1:8009 node --test newcomer.mjs
//
// VOICE_URL: a server with open registration. CLOSED_URL: one as it is without any settings, that nobody administers yet;
// without it those tests are left out. CHROMIUM: the browser's path. SCREENSHOTS: a folder.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { FLAGS, until } from './support.mjs';

const { VOICE_URL, CLOSED_URL, CHROMIUM = '/usr/bin/chromium', SCREENSHOTS } = process.env;
const PASSWORD = 'correct horse battery staple';
const AUDIBLE_DB = -45;
const withoutFakeConsent = FLAGS.filter(flag => flag !== '--use-fake-ui-for-media-stream');

let browser;
before(async () => { browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS, headless: true }); });
after(() => browser?.close());

/** A window of its own, with a tone instead of a microphone. */
async function windowAt(url, { hz, ...options } = {}) {
  const context = await browser.newContext({ permissions: ['microphone', 'clipboard-read', 'clipboard-write'], viewport: { width: 900, height: 820 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.faults = [];
  page.on('pageerror', error => page.faults.push(error.message));
  await page.goto(url);
  if (hz) await page.evaluate(hz => window.voiceCheck.useTone(hz), hz);
  return page;
}
async function shoot(page, name) {
  if (!SCREENSHOTS) return;
  await page.screenshot({ path: `${SCREENSHOTS}/${name}.png`, fullPage: true });
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.screenshot({ path: `${SCREENSHOTS}/${name}-dark.png`, fullPage: true });
  await page.emulateMedia({ colorScheme: 'light' });
  const size = page.viewportSize();
  await page.setViewportSize({ width: 360, height: 740 });
  await page.screenshot({ path: `${SCREENSHOTS}/${name}-narrow.png`, fullPage: true });
  await page.setViewportSize(size);
}
/** Nothing sticks out of a narrow window. */
async function fitsNarrow(page) {
  const size = page.viewportSize();
  await page.setViewportSize({ width: 320, height: 640 });
  const surplus = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  await page.setViewportSize(size);
  assert.ok(surplus <= 0, `${surplus} pixels stick out of a window of 320`);
}
async function registers(page, name) {
  await page.getByRole('tab', { name: 'Create an account' }).click();
  await page.getByLabel('User name').fill(name);
  await page.getByLabel('Password').fill(PASSWORD);
  await page.getByRole('button', { name: /Create the account/ }).click();
}
const fresh = name => name + randomBytes(3).toString('hex');
const hears = (page, hz) => until(`a tone of ${hz} Hz`, async () => await page.evaluate(hz => window.voiceCheck.heard(hz), hz) > AUDIBLE_DB);

test('two newcomers register, one makes a room and sends the link, and they hear each other', async () => {
  const alice = await windowAt(VOICE_URL + '/voice/check', { hz: 440 });
  await alice.getByRole('tab', { name: 'Create an account' }).waitFor();
  await shoot(alice, '1-door');
  await fitsNarrow(alice);
  await registers(alice, fresh('alice'));
  await alice.getByRole('heading', { name: 'Your voice rooms' }).waitFor();
  await shoot(alice, '2-no-rooms');
  await fitsNarrow(alice);
  await alice.getByLabel('New voice room').fill('Tea kitchen');
  await alice.getByRole('button', { name: 'Make the room and join' }).click();
  await alice.getByText('You are the only one here.').waitFor();
  await alice.getByText('Connected', { exact: true }).waitFor();
  await shoot(alice, '3-alone');
  await fitsNarrow(alice);
  await alice.getByRole('button', { name: 'Copy', exact: true }).click();
  const link = await alice.evaluate(() => navigator.clipboard.readText());

  const bob = await windowAt(link, { hz: 880 });
  await bob.getByRole('heading', { name: 'You are invited to a voice room' }).waitFor();
  await shoot(bob, '4-invited');
  await registers(bob, fresh('bob'));
  await bob.getByRole('heading', { name: 'Tea kitchen' }).waitFor();

  await Promise.all([hears(alice, 880), hears(bob, 440)]);
  await until('both are shown as speaking', async () => await alice.locator('#people li.speaking').count() === 2);
  await shoot(alice, '5-two');
  await bob.getByRole('button', { name: 'Mute microphone' }).click();
  await until('Bob is shown as muted', () => alice.locator('#people li.muted').count());
  await shoot(bob, '6-muted');
  await fitsNarrow(bob);
  await bob.keyboard.press('m');
  await hears(alice, 880);

  await bob.getByRole('button', { name: 'Leave' }).click();
  await bob.getByText(/In the call: alice/).waitFor();
  await shoot(bob, '7-rooms');
  await bob.getByRole('button', { name: 'Join Tea kitchen' }).click();
  await hears(alice, 880);
  assert.deepEqual([...alice.faults, ...bob.faults], []);
  await Promise.all([alice.context().close(), bob.context().close()]);
});

test('a link that names another server says so before anybody types a password', { skip: !CLOSED_URL }, async () => {
  const page = await windowAt(`${VOICE_URL}/voice/check?room=%21x%3Ay&homeserver=${encodeURIComponent(CLOSED_URL)}`);

  await page.getByText(`Your password would go to ${CLOSED_URL}`).waitFor();
  assert.equal(await page.getByLabel('Address of the homeserver').inputValue(), CLOSED_URL);
  await page.getByRole('button', { name: `Sign in at ${new URL(CLOSED_URL).host}` }).waitFor();
  await page.context().close();
});

test('one person with two windows is in the call twice and told apart', async () => {
  const name = fresh('carol');
  const first = await windowAt(VOICE_URL + '/voice/check', { hz: 440 });
  await registers(first, name);
  await first.getByRole('button', { name: 'Make the room and join' }).click();
  await first.getByText('You are the only one here.').waitFor();
  const second = await windowAt(await first.locator('#link').inputValue(), { hz: 880 });
  await second.getByRole('tab', { name: 'Sign in' }).click();
  await second.getByLabel('User name').fill(name);
  await second.getByLabel('Password').fill(PASSWORD);
  await second.getByRole('button', { name: 'Sign in and join' }).click();

  await Promise.all([hears(first, 880), hears(second, 440)]);

  assert.equal(await first.locator('#people li').count(), 2);
  await Promise.all([first.context().close(), second.context().close()]);
});

test('a wrong password and a taken name are said in plain words', async () => {
  const name = fresh('dora');
  const page = await windowAt(VOICE_URL + '/voice/check');
  await registers(page, name);
  await page.getByRole('button', { name: 'Sign out' }).click();
  await registers(page, name);
  await page.getByText('That user name is taken.').waitFor();
  await shoot(page, '8-taken');
  await page.getByRole('tab', { name: 'Sign in' }).click();
  await page.getByLabel('Password').fill('not it');
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();

  await page.getByText('User name or password is wrong.').waitFor();

  await page.context().close();
});

test('a refused microphone is explained, and one may still listen', async () => {
  const strict = await chromium.launch({ executablePath: CHROMIUM, args: [...withoutFakeConsent, '--deny-permission-prompts'], headless: true });
  try {
    const page = await (await strict.newContext({ viewport: { width: 900, height: 820 } })).newPage();
    await page.goto(VOICE_URL + '/voice/check');
    await registers(page, fresh('erin'));
    await page.getByLabel('New voice room').fill('Listening');
    await page.getByRole('button', { name: 'Make the room and join' }).click();
    await page.getByRole('heading', { name: 'The microphone cannot be used' }).waitFor();
    await shoot(page, '9-microphone-refused');
    await fitsNarrow(page);
    await page.getByRole('button', { name: 'Join and only listen' }).click();
    await page.getByText('Connected', { exact: true }).waitFor();
    await shoot(page, '10-listening');
    await page.getByRole('button', { name: 'Use microphone' }).click();

    await page.locator('#notice').getByText('The browser was not allowed to use it.').waitFor();
  } finally {
    await strict.close();
  }
});

test('a reload keeps one signed in, and signing out does not', async () => {
  const page = await windowAt(VOICE_URL + '/voice/check');
  await registers(page, fresh('fay'));
  await page.getByRole('heading', { name: 'Your voice rooms' }).waitFor();
  await page.reload();
  await page.getByRole('heading', { name: 'Your voice rooms' }).waitFor();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Welcome' }).waitFor();
  await page.reload();

  await page.getByRole('heading', { name: 'Welcome' }).waitFor();

  await page.context().close();
});

test('a link to a room that is not there is said to be wrong', async () => {
  const page = await windowAt(VOICE_URL + '/voice/check?room=%23nowhere%3A127.0.0.1');
  await registers(page, fresh('gil'));

  await page.locator('#notice.bad').waitFor();
  await shoot(page, '11-no-such-room');

  await page.context().close();
});

test('every control has a name, and the page can be worked by keyboard', async () => {
  const page = await windowAt(VOICE_URL + '/voice/check');
  await page.getByRole('tab', { name: 'Create an account' }).waitFor();
  await page.getByLabel('User name').focus();
  await page.keyboard.type(fresh('hal'));
  await page.keyboard.press('Tab');
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Your voice rooms' }).waitFor();

  const nameless = await page.evaluate(() => [...document.querySelectorAll('button, input, select')].filter(element =>
    !element.textContent.trim() && !element.labels?.length && !element.getAttribute('aria-label')).map(element => element.id));

  assert.deepEqual(nameless, []);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'roomstitle');
  await page.context().close();
});

test('on a server that nobody administers yet the page says what comes first, and after that it works', { skip: !CLOSED_URL }, async () => {
  const page = await windowAt(CLOSED_URL + '/voice/check', { hz: 440 });
  await page.getByText('No account yet?').waitFor();
  await shoot(page, '12-closed');
  await fitsNarrow(page);
  assert.equal(await page.getByRole('tab', { name: 'Create an account' }).isVisible(), false);

  await page.goto(process.env.WELCOME_LINK);
  await page.getByLabel('User name').fill('boss');
  await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
  await page.getByLabel('The same password again').fill(PASSWORD);
  await page.getByRole('button').click();
  await page.getByText('You are in charge').waitFor();
  await shoot(page, '13-in-charge');
  await page.getByRole('link', { name: /voice/ }).click();
  await page.evaluate(hz => window.voiceCheck.useTone(hz), 440);
  await page.getByLabel('User name').fill('boss');
  await page.getByLabel('Password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await page.getByRole('button', { name: 'Make the room and join' }).click();

  await page.getByText('Connected', { exact: true }).waitFor();

  await page.context().close();
});
