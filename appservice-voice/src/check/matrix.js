'use strict';
// The page of voice rooms, first part: names for what the others use, and the Matrix homeserver.
const $ = id => document.getElementById(id);
const SUB_PROTOCOL = 'jsonrpc2.voicechat.v1';
const SLOTS = 8, RECONNECTS_MAX = 20, RECONNECT_PAUSE_MAX_MS = 5000, NEWS_KEPT_MAX = 500, FFT_SIZE = 8192;
const SILENCE_DB = -75, SILENCE_MS = 6000, CONNECT_MS = 12000;
const SESSION_KEY = 'voicechat.session';
const ROOM_TYPES = ['org.voicechat.voice', 'org.matrix.msc3417.call'], CALL_MEMBER = 'org.matrix.msc3401.call.member';
const wait = ms => new Promise(resolve => setTimeout(resolve, ms));

// ---------------------------------------------------------------- Matrix
const matrix = {
  base: '', token: null, userId: null, deviceId: null,
  async raw(method, path, body, signal) {
    const reply = await fetch(this.base + path, { method, signal,
      headers: { ...(this.token && { Authorization: 'Bearer ' + this.token }), ...(body && { 'Content-Type': 'application/json' }) },
      body: body && JSON.stringify(body) }).catch(error => {
      throw error.name === 'AbortError' ? error : Object.assign(new Error('The server cannot be reached. Check its address and your connection.'), { unreachable: true });
    });
    return { status: reply.status, ok: reply.ok, json: await reply.json().catch(() => ({})) };
  },
  async ask(method, path, body, signal) {
    const { status, ok, json } = await this.raw(method, path, body, signal);
    if (!ok) throw this.fault(status, json);
    return json;
  },
  fault(status, json) {
    const words = {
      M_USER_IN_USE: 'That user name is taken. Choose another one, or sign in if it is yours.',
      M_INVALID_USERNAME: 'That user name cannot be used. Small letters a to z, digits and . _ = - / are allowed.',
      M_LIMIT_EXCEEDED: `Too many attempts. Wait ${Math.ceil((json.retry_after_ms ?? 5000) / 1000)} s and try again.`,
      M_UNKNOWN_TOKEN: 'You were signed out. Sign in again.',
      M_USER_DEACTIVATED: 'This account has been closed.',
    };
    return Object.assign(new Error(words[json.errcode] || json.error || `The server answered ${status}.`), { errcode: json.errcode, status });
  },
  settle(base) { this.base = base.trim().replace(/\/+$/, ''); this.token = null; },
  signedIn(me) {
    Object.assign(this, { token: me.access_token, userId: me.user_id, deviceId: me.device_id });
    this.keep();
    return me;
  },
  async login(base, user, password) {
    this.settle(base);
    return this.signedIn(await this.ask('POST', '/_matrix/client/v3/login', { type: 'm.login.password',
      identifier: { type: 'm.id.user', user }, password, initial_device_display_name: 'Voice rooms in a browser' }).catch(error => {
      if (error.errcode === 'M_FORBIDDEN') error.message = 'User name or password is wrong.';
      throw error;
    }));
  },
  /** What registering takes: null when people cannot register by themselves, else {token, terms} with the documents to agree to. */
  async registration(base) {
    this.settle(base);
    const { status, json } = await this.raw('POST', '/_matrix/client/v3/register', {});
    const stages = status === 401 && this.stages(json);
    if (!stages) return null;
    const policies = Object.values(json.params?.['m.login.terms']?.policies ?? {}).map(policy => policy.en ?? Object.values(policy).find(value => value.url));
    return { token: stages.includes('m.login.registration_token'), terms: stages.includes('m.login.terms') ? policies.filter(Boolean) : [] };
  },
  /** The stages of the first flow that this page can do. */
  stages(json) {
    const known = ['m.login.dummy', 'm.login.registration_token', 'm.login.terms'];
    return json.flows?.map(flow => flow.stages).find(stages => stages.every(stage => known.includes(stage)));
  },
  async register(base, username, password, token) {
    this.settle(base);
    const body = { username, password, initial_device_display_name: 'Voice rooms in a browser' };
    let reply = await this.raw('POST', '/_matrix/client/v3/register', body);
    for (let round = 0; reply.status === 401 && round < 4; round++) {
      const stage = this.stages(reply.json)?.find(stage => !reply.json.completed?.includes(stage));
      if (!stage || reply.json.errcode) break;
      reply = await this.raw('POST', '/_matrix/client/v3/register', { ...body,
        auth: { type: stage, session: reply.json.session, ...(stage === 'm.login.registration_token' && { token }) } });
    }
    if (reply.status === 401) throw new Error(token ? 'The server does not know this registration token.' : 'The server does not let you register from here.');
    if (!reply.ok) throw this.fault(reply.status, reply.json);
    return this.signedIn(reply.json);
  },
  keep() {
    const { base, token, userId, deviceId } = this;
    try { token ? sessionStorage.setItem(SESSION_KEY, JSON.stringify({ base, token, userId, deviceId })) : sessionStorage.removeItem(SESSION_KEY); } catch { /* storage is off: sign in again after a reload */ }
  },
  /** Whether this tab was signed in and still is. */
  async resume() {
    try { Object.assign(this, JSON.parse(sessionStorage.getItem(SESSION_KEY))); } catch { return false; }
    if (!this.token) return false;
    try { await this.ask('GET', '/_matrix/client/v3/account/whoami'); return true; } catch { this.token = null; return false; }
  },
  async logout() {
    if (!this.token) return;
    const done = this.ask('POST', '/_matrix/client/v3/logout', {});
    this.token = null; this.keep();
    await done.catch(() => {});
  },
  get serverName() { return this.userId?.slice(this.userId.indexOf(':') + 1) ?? ''; },
  async createVoiceRoom(name, listed) {
    const room = await this.ask('POST', '/_matrix/client/v3/createRoom', { name, preset: 'public_chat', visibility: listed ? 'public' : 'private',
      creation_content: { type: ROOM_TYPES[0] },
      power_level_content_override: { events: { [CALL_MEMBER]: 0, 'm.room.name': 50, 'm.room.power_levels': 100 } },
      initial_state: [{ type: 'org.voicechat.voice.config', state_key: '', content: { bitrate: 64000, frame_ms: 20, user_limit: 50, jitter: { min: 20, max: 200 } } }] });
    return room.room_id;
  },
  async enter(room, via = []) {
    const query = via.flatMap(server => ['via=' + encodeURIComponent(server), 'server_name=' + encodeURIComponent(server)]).join('&');
    const joined = await this.ask('POST', `/_matrix/client/v3/join/${encodeURIComponent(room)}${query && '?' + query}`, {}).catch(error => {
      if (error.status === 404) error.message = 'There is no such room. Check the link or address.';
      if (error.status === 502) error.message = `The server of this room cannot be reached (${error.message}).`;
      if (error.errcode === 'M_FORBIDDEN') error.message = 'This room takes only people who were invited. Ask somebody in it for an invitation.';
      throw error;
    });
    return joined.room_id;
  },
  async nameOf(roomId) {
    const content = await this.ask('GET', `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/state/m.room.name`).catch(() => ({}));
    return content.name || 'Voice room';
  },
  /** Proof of who we are for the voice service: our token only to our own server, else one that proves our name and nothing more. */
  async proof() {
    if (this.base === location.origin) return { access_token: this.token };
    const openid = await this.ask('POST', `/_matrix/client/v3/user/${encodeURIComponent(this.userId)}/openid/request_token`, {});
    return { openid, user_id: this.userId, device_id: this.deviceId };
  },
};
/** Room and servers out of an invite link of this page, a matrix.to link, an id or an alias. */
function target(text) {
  text = text.trim();
  try {
    const url = new URL(text), [path, query] = decodeURIComponent(url.hash.replace(/^#\//, '')).split('?');
    const room = url.searchParams.get('room') || path;
    if (/^[!#]/.test(room)) return { room, via: [...url.searchParams.getAll('via'), ...new URLSearchParams(query).getAll('via')], homeserver: url.searchParams.get('homeserver') };
  } catch { /* not a link */ }
  return { room: text, via: text.includes(':') ? [text.slice(text.indexOf(':') + 1)] : [] };
}
