// The page of voice rooms, third part: what is on screen.

// ---------------------------------------------------------------- The list of rooms
const lobby = {
  rooms: new Map(), listed: [], since: null, running: null,
  /** Follow the rooms' names and calls for as long as the list is on screen. */
  async follow() {
    if (this.running) return;
    const stop = this.running = new AbortController(), token = matrix.token;
    const types = ['m.room.create', 'm.room.name', 'm.room.canonical_alias', CALL_MEMBER], nothing = { types: [] };
    const filter = JSON.stringify({ presence: nothing, account_data: nothing, room: { account_data: nothing, ephemeral: nothing, state: { types }, timeline: { types, limit: 20 } } });
    this.showPublic(stop.signal);
    while (!stop.signal.aborted && matrix.token === token) {
      try {
        const query = new URLSearchParams({ filter, timeout: this.since ? 30000 : 0, ...(this.since && { since: this.since }) });
        this.take(await matrix.ask('GET', '/_matrix/client/v3/sync?' + query, undefined, stop.signal));
        this.draw();
      } catch (error) {
        if (stop.signal.aborted) break;
        if (error.errcode === 'M_UNKNOWN_TOKEN') { await signOut(); notice(error.message, 'warn'); break; }
        await wait(3000);
      }
    }
    if (this.running === stop) this.running = null;
  },
  stop() { this.running?.abort(); this.running = null; },
  forget() { this.stop(); this.rooms.clear(); this.listed = []; this.since = null; },
  take(sync) {
    this.since = sync.next_batch;
    for (const [id, { state, timeline }] of Object.entries(sync.rooms?.join ?? {})) this.note(id, 'join', [...state?.events ?? [], ...timeline?.events ?? []]);
    for (const [id, { invite_state }] of Object.entries(sync.rooms?.invite ?? {})) this.note(id, 'invite', invite_state?.events ?? []);
    for (const id of Object.keys(sync.rooms?.leave ?? {})) this.rooms.delete(id);
  },
  note(id, membership, events) {
    const room = this.rooms.get(id) ?? { id, callers: new Map() };
    room.membership = membership;
    for (const { type, state_key, content, sender } of events) {
      if (type === 'm.room.create') room.type = content.type;
      if (type === 'm.room.name') room.name = content.name;
      if (type === 'm.room.canonical_alias') room.alias = content.alias;
      if (type === CALL_MEMBER) content.application ? room.callers.set(state_key, sender) : room.callers.delete(state_key);
    }
    this.rooms.set(id, room);
  },
  async showPublic(signal) {
    const page = await matrix.ask('POST', '/_matrix/client/v3/publicRooms', { limit: 50, filter: { room_types: ROOM_TYPES } }, signal).catch(() => ({ chunk: [] }));
    this.listed = page.chunk.map(room => ({ id: room.room_id, name: room.name, alias: room.canonical_alias, membership: 'none', callers: new Map() }));
    this.draw();
  },
  draw() {
    const mine = [...this.rooms.values()].filter(room => ROOM_TYPES.includes(room.type));
    const others = this.listed.filter(room => !this.rooms.has(room.id));
    const rooms = [...mine, ...others].sort((a, b) => b.callers.size - a.callers.size || (a.name ?? '').localeCompare(b.name ?? ''));
    $('noroom').hidden = rooms.length > 0; $('roomlist').hidden = rooms.length === 0;
    $('roomlist').replaceChildren(...rooms.map(room => {
      const item = document.createElement('li'), words = document.createElement('div'), name = document.createElement('strong'), note = document.createElement('small'), join = document.createElement('button');
      const people = [...new Set(room.callers.values())].map(nameOf);
      name.textContent = room.name || room.alias || 'Voice room'; name.title = room.id;
      note.textContent = room.membership === 'invite' ? 'You are invited' : people.length ? `In the call: ${people.slice(0, 5).join(', ')}${people.length > 5 ? ` and ${people.length - 5} more` : ''}`
        : room.membership === 'join' ? 'Nobody is in the call' : 'Open to everybody on this server';
      join.textContent = 'Join'; join.className = people.length ? 'main' : ''; join.setAttribute('aria-label', 'Join ' + name.textContent);
      join.onclick = () => go({ room: room.id, via: [] });
      words.append(name, note); item.append(words, join);
      return item;
    }));
  },
};

// ---------------------------------------------------------------- The page
function notice(text = '', kind = '') {
  $('notice').textContent = text; $('notice').className = 'notice ' + kind; $('notice').hidden = !text;
  $('notice').setAttribute('role', kind === 'bad' ? 'alert' : 'status');
}
function announce(text) { $('announce').textContent = text; }
/** Bring one part of the page on screen: the door, the rooms, the microphone's fault or the call. */
function show(part) {
  for (const id of ['door', 'rooms', 'micfault', 'call']) $(id).hidden = id !== part;
  $('figures').hidden = part !== 'call';
  $('who').hidden = !matrix.token; $('me').textContent = matrix.userId ?? '';
  if (part === 'rooms') lobby.follow(); else lobby.stop();
  $(part).querySelector('h2').focus({ preventScroll: true });
}
function showStatus() {
  const words = { new: 'Connecting …', connecting: 'Connecting …', connected: 'Connected', disconnected: 'The connection is weak', failed: 'The connection was lost', closed: '' };
  const text = words[call.pc?.connectionState] ?? '';
  if ($('status').textContent !== text) $('status').textContent = text;
  $('status').className = call.pc?.connectionState === 'connected' ? 'good' : 'soft';
}
function showControls() {
  $('mute').textContent = !sound.track ? 'Use microphone' : call.muted ? 'Unmute microphone' : 'Mute microphone'; $('mute').setAttribute('aria-pressed', call.muted && Boolean(sound.track)); $('mute').className = sound.track ? '' : 'main';
  $('deafen').textContent = call.deafened ? 'Unmute sound' : 'Mute sound'; $('deafen').setAttribute('aria-pressed', call.deafened);
  $('micfield').hidden = !sound.track || $('microphone').options.length === 0; $('meter').hidden = !sound.track;
}
function showPeople() {
  const twice = new Map();
  for (const { user_id } of call.people.values()) twice.set(user_id, (twice.get(user_id) ?? 0) + 1);
  $('people').replaceChildren(...[...call.people.values()].map(person => {
    const name = nameOf(person.user_id);
    const hue = [...person.user_id].reduce((sum, c) => (sum * 31 + c.codePointAt(0)) % 360, 7);
    const item = document.createElement('li'), avatar = document.createElement('div'), label = document.createElement('div'), mark = document.createElement('div');
    const silent = person.muted || person.server_muted, isMe = person.participant_id === call.me;
    item.className = [person.speaking && !silent && 'speaking', silent && 'muted'].filter(Boolean).join(' ');
    avatar.className = 'avatar'; avatar.textContent = (name[0] || '?').toUpperCase(); avatar.style.background = `hsl(${hue} 50% 36%)`; avatar.setAttribute('aria-hidden', 'true');
    label.className = 'name'; label.textContent = name; label.title = person.user_id;
    mark.className = 'mark';
    mark.textContent = [isMe && 'you', !isMe && twice.get(person.user_id) > 1 && person.device_id, person.server_muted ? 'muted by the room' : person.muted && 'muted',
      person.deafened && 'hears nothing', person.speaking && !silent && 'speaking'].filter(Boolean).join(', ');
    item.append(avatar, label, mark);
    return item;
  }));
  $('alone').hidden = call.people.size !== 1;
  showStatus();
}
let quietSince = null;
function showSilence(text = '') { if ($('silent').textContent !== text) $('silent').textContent = text; $('silent').hidden = !text; }
function drawLevel() {
  requestAnimationFrame(drawLevel);
  if (!sound.analyser || document.hidden || $('call').hidden) return;
  const canvas = $('level'), pen = canvas.getContext('2d'), style = getComputedStyle(document.documentElement);
  const level = loudness(sound.analyser), share = Math.min(1, Math.max(0, (level + 60) / 60));
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = style.getPropertyValue(call.muted ? '--soft' : share > .92 ? '--bad' : '--good');
  pen.fillRect(0, 0, canvas.width * share, canvas.height);
  if (sound.track?.readyState === 'ended') return;
  quietSince = level < SILENCE_DB && !call.muted ? quietSince ?? performance.now() : null;
  const isSilent = quietSince && performance.now() - quietSince > SILENCE_MS;
  showSilence(isSilent ? 'Nothing comes from your microphone. Is it switched off, or is another one meant?' : '');
}
drawLevel();

/** Do something that takes a while: buttons rest, faults are told. */
async function busy(work) {
  const buttons = [...document.querySelectorAll('#door button, #rooms button, #micfault button')].filter(button => !button.disabled);
  for (const button of buttons) button.disabled = true;
  try { return await work(); } catch (error) { notice(error.message, 'bad'); } finally { for (const button of buttons) button.disabled = false; }
}
let pending = null;
/** Into a room, or to what is in the way: the microphone. */
function go(where) {
  return busy(() => enter(where).then(() => { pending = null; }, error => {
    if (error.kind !== 'microphone') { pending = null; show(matrix.token ? 'rooms' : 'door'); throw error; }
    pending = { ...where, ...(!where.create && { room: call.roomId, via: [] }) };
    $('micwords').textContent = error.message;
    show('micfault');
  }));
}
async function signOut() { lobby.forget(); await matrix.logout(); await showDoor(); }

const query = new URLSearchParams(location.search);
const invited = query.get('room') ? { room: query.get('room'), via: query.getAll('via') } : null;
let asksToRegister = false, registration = null;
/** The tab that somebody pressed, perhaps before the server said whether it lets people register. */
let pressed = null;
function chooseTab(register) {
  asksToRegister = register && Boolean(registration);
  $('tabnew').setAttribute('aria-selected', asksToRegister); $('tabold').setAttribute('aria-selected', !asksToRegister);
  $('tabnew').tabIndex = asksToRegister ? 0 : -1; $('tabold').tabIndex = asksToRegister ? -1 : 0;
  $('password').autocomplete = asksToRegister ? 'new-password' : 'current-password';
  $('tokenfield').hidden = !(asksToRegister && registration.token); $('token').required = !$('tokenfield').hidden;
  $('termsfield').hidden = !(asksToRegister && registration.terms.length); $('terms').required = !$('termsfield').hidden;
  $('submit').textContent = (asksToRegister ? 'Create the account' : 'Sign in') + (elsewhere() ? ' at ' + elsewhere().replace(/^https?:\/\//, '') : '') + (invited ? ' and join' : '');
}
/** The homeserver that somebody is to sign in at, when it is not the one this page came from. Any link can name one, so it is always said. */
function elsewhere() { const base = $('homeserver').value.trim().replace(/\/+$/, ''); return base === location.origin ? null : base; }
/** The door, as this homeserver lets people in. */
async function showDoor() {
  $('doortitle').textContent = invited ? 'You are invited to a voice room' : 'Welcome';
  show('door');
  if (elsewhere()) $('elsewhere').open = true;
  notice(elsewhere() ? `Your password would go to ${elsewhere()}, not to this server. Go on only if your account is there.` : '', 'warn');
  $('closed').hidden = true; registration = null;
  try {
    registration = await matrix.registration($('homeserver').value);
    $('closed').hidden = Boolean(registration);
  } catch (error) {
    $('elsewhere').open = true;
    notice(`No Matrix homeserver answers at ${$('homeserver').value}. Give the address of yours below.`, 'bad');
  }
  const links = (registration?.terms ?? []).map(({ name, url }) => Object.assign(document.createElement('a'), { textContent: name || url, href: /^https?:/.test(url) ? url : '#', target: '_blank', rel: 'noopener' }));
  $('termslinks').replaceChildren(...links.flatMap((link, n) => n ? [', ', link] : [link]));
  document.querySelector('.tabs').hidden = !registration;
  chooseTab(pressed !== 'tabold');
}
async function signIn() {
  const [base, user, password] = [$('homeserver').value, $('user').value.trim(), $('password').value];
  notice();
  await (asksToRegister ? matrix.register(base, user, password, $('token').value.trim()) : matrix.login(base, user, password));
  $('password').value = '';
  if (invited) return go(invited);
  show('rooms');
}

$('homeserver').value = query.get('homeserver') || location.origin;
$('homeserver').onchange = () => showDoor();
$('tabnew').onclick = $('tabold').onclick = event => { pressed = event.currentTarget.id; chooseTab(pressed === 'tabnew'); };
document.querySelector('.tabs').onkeydown = ({ key }) => { if (key === 'ArrowLeft' || key === 'ArrowRight') { chooseTab(!asksToRegister); pressed = asksToRegister ? 'tabnew' : 'tabold'; $(pressed).focus(); } };
$('form').onsubmit = event => { event.preventDefault(); busy(signIn); };
$('makeform').onsubmit = event => { event.preventDefault(); go({ create: true, name: $('newname').value.trim(), listed: $('listed').checked }); };
$('joinform').onsubmit = event => { event.preventDefault(); if ($('room').value.trim()) go(target($('room').value)); };
$('signout').onclick = () => busy(async () => { notice(); if (call.wanted) await leave(); await signOut(); });
$('micagain').onclick = () => go(pending);
$('miclisten').onclick = () => go({ ...pending, listenOnly: true });
$('micback').onclick = () => show('rooms');
const tell = error => notice((error.kind === 'microphone' ? 'The microphone cannot be used. ' : '') + error.message, 'bad');
$('microphone').onchange = () => useMicrophone($('microphone').value).catch(tell);
navigator.mediaDevices?.addEventListener('devicechange', () => listMicrophones());
$('mute').onclick = () => setMuted(!call.muted).catch(tell);
$('deafen').onclick = () => setDeafened(!call.deafened).catch(tell);
const copyLink = () => navigator.clipboard.writeText(inviteLink()).then(() => notice('Copied. Send the link to whoever should join.'), () => notice(inviteLink()));
$('share').onclick = $('copylink').onclick = copyLink;
$('link').onfocus = () => $('link').select();
$('leave').onclick = () => leave();
document.onkeydown = event => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey;
  if (event.key.toLowerCase() === 'm' && !event.repeat && !typing && !$('call').hidden) $('mute').click();
};
// A page that goes away says so: the others need not wait until its silence is noticed.
addEventListener('pagehide', () => { if (call.wanted) call.rpc?.call('leave', { participant_id: call.me }).catch(() => {}); });

(async () => {
  if (await matrix.resume()) {
    show('rooms');
    if (invited) notice('You opened an invite link. Press Join to enter the room.');
    if (invited) { $('room').value = location.href; $('bylink').open = true; }
  } else await showDoor();
})();

/** What tests drive and read. */
window.voiceCheck = {
  enter, leave, mute: () => setMuted(true), unmute: () => setMuted(false), deafen: setDeafened, figures,
  useTone(hz) { sound.tone = hz; },
  call: (method, params) => call.rpc.call(method, { participant_id: call.me, ...params }),
  state: () => ({ me: call.me, roomId: call.roomId, userId: matrix.userId, people: [...call.people.values()], midMap: call.midMap,
    muted: call.muted, connection: call.pc?.connectionState, config: call.config }),
  /** The loudest that `hz` is among all slots, dB. */
  heard: hz => Math.max(-200, ...[...call.ears.values()].map(ear => loudnessAt(ear.analyser, hz))),
  news: method => call.news.filter(news => !method || news.method === method),
};
