// The page of voice rooms, second part: the connection to the voice service, sound, the call.

// ---------------------------------------------------------------- JSON-RPC
class Rpc {
  constructor(onNews, onClose) { Object.assign(this, { onNews, onClose, next: 1, waiting: new Map() }); }
  open() {
    return new Promise((resolve, reject) => {
      this.socket = new WebSocket(location.origin.replace(/^http/, 'ws') + '/_voicechat/v1/ws', [SUB_PROTOCOL]);
      this.socket.onopen = resolve;
      this.socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.method) return this.onNews(message.method.replace('voice.', ''), message.params);
        const waiting = this.waiting.get(message.id);
        this.waiting.delete(message.id);
        if (message.error) waiting?.reject(Object.assign(new Error(message.error.message), message.error));
        else waiting?.resolve(message.result);
      };
      this.socket.onclose = () => {
        const gone = new Error('The voice server cannot be reached.');
        reject(gone);
        for (const waiting of this.waiting.values()) waiting.reject(gone);
        this.onClose();
      };
    });
  }
  call(method, params = {}) {
    return new Promise((resolve, reject) => {
      if (this.socket.readyState !== WebSocket.OPEN) return reject(new Error('Not connected'));
      const id = this.next++;
      this.waiting.set(id, { resolve, reject });
      this.socket.send(JSON.stringify({ jsonrpc: '2.0', id, method: 'voice.' + method, params }));
    });
  }
  close() { this.onClose = () => {}; this.socket?.close(1000); }
}

// ---------------------------------------------------------------- Sound
const sound = {
  context: null, track: null, analyser: null, tone: null, device: '',
  async start({ listenOnly = false } = {}) {
    this.context ??= new AudioContext({ sampleRate: 48000 });
    if (this.context.state !== 'running') await Promise.race([this.context.resume(), wait(1000)]);
    this.stop();
    if (!listenOnly) await this.open();
  },
  async open() {
    const stream = this.tone ? this.generated(this.tone) : await this.microphone();
    this.track?.stop();
    this.track = stream.getAudioTracks()[0];
    this.track.onended = () => showSilence('The microphone is gone. Choose another one.');
    this.analyser = this.listen(stream);
    await listMicrophones();
  },
  async microphone() {
    try {
      if (!navigator.mediaDevices) throw Object.assign(new Error(), { name: 'InsecureContext' });
      return await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1,
        ...(this.device && { deviceId: { exact: this.device } }) } });
    } catch (error) {
      const local = `http://localhost${location.port && ':' + location.port}${location.pathname}`;
      const words = {
        NotAllowedError: 'The browser was not allowed to use it. Click the microphone or lock beside the address of this page, allow the microphone, then try again.',
        NotFoundError: 'No microphone was found. Plug one in, then try again.',
        OverconstrainedError: 'The microphone you chose is gone. Try again to use another one.',
        NotReadableError: 'It is there but gives no sound. Another program may be using it: close that, then try again.',
        InsecureContext: `Browsers give the microphone only to pages over https, or on this same computer. On the computer of the server open ${local}; for everybody else the server needs https.`,
      };
      if (error.name === 'OverconstrainedError') this.device = '';
      throw Object.assign(new Error(words[error.name] || error.message || 'The browser says ' + error.name), { kind: 'microphone' });
    }
  },
  generated(hz) {
    const [oscillator, gain, out] = [this.context.createOscillator(), this.context.createGain(), this.context.createMediaStreamDestination()];
    oscillator.frequency.value = hz; gain.gain.value = .4;
    oscillator.connect(gain).connect(out); oscillator.start();
    return out.stream;
  },
  listen(stream) {
    const analyser = this.context.createAnalyser();
    analyser.fftSize = FFT_SIZE; analyser.smoothingTimeConstant = 0;
    this.context.createMediaStreamSource(stream).connect(analyser);
    return analyser;
  },
  stop() { if (this.track) this.track.onended = null; this.track?.stop(); this.track = this.analyser = null; },
};
/** Loudness of one frequency, dB relative to full scale. */
function loudnessAt(analyser, hz) {
  const bins = new Float32Array(analyser.frequencyBinCount);
  analyser.getFloatFrequencyData(bins);
  const at = Math.round(hz * FFT_SIZE / sound.context.sampleRate);
  return Math.max(-200, ...bins.slice(at - 1, at + 2));
}
function loudness(analyser) {
  const samples = new Float32Array(2048);
  analyser.getFloatTimeDomainData(samples);
  const power = samples.reduce((sum, x) => sum + x * x, 0) / samples.length;
  return 10 * Math.log10(power + 1e-12);
}
async function listMicrophones() {
  const devices = await navigator.mediaDevices?.enumerateDevices().catch(() => []) ?? [];
  const inputs = devices.filter(device => device.kind === 'audioinput');
  const used = sound.track?.getSettings().deviceId;
  $('microphone').replaceChildren(...inputs.map((device, n) => new Option(device.label || 'Microphone ' + (n + 1), device.deviceId, false, device.deviceId === used)));
  $('micfield').hidden = !sound.track || inputs.length === 0;
}

// ---------------------------------------------------------------- The call
const call = { rpc: null, pc: null, sender: null, roomId: null, me: null, people: new Map(), midMap: {}, ears: new Map(), config: null,
  muted: false, deafened: false, news: [], wanted: false, reconnecting: false };

async function connect() {
  call.rpc = new Rpc(onNews, () => reconnect());
  await call.rpc.open();
  const welcome = await call.rpc.call('hello', await matrix.proof());
  const joined = await call.rpc.call('join', { room_id: call.roomId, muted: call.muted, deafened: call.deafened });
  call.me = joined.participant_id; call.config = joined.room.config;
  call.people = new Map(joined.participants.map(p => [p.participant_id, p]));
  await connectMedia(Math.min(SLOTS, welcome.limits.slots_max));
  showPeople();
}
async function connectMedia(slots) {
  call.pc?.close(); call.ears.clear();
  const pc = call.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  call.sender = pc.addTransceiver(sound.track ?? 'audio', { direction: 'sendonly' }).sender;
  for (let n = 0; n < slots; n++) pc.addTransceiver('audio', { direction: 'recvonly' });
  pc.ontrack = ({ transceiver, track }) => {
    const stream = new MediaStream([track]);
    const audio = new Audio(); audio.srcObject = stream; audio.muted = call.deafened;
    audio.play().catch(() => notice('Press any button so that the browser lets sound play.', 'warn'));
    call.ears.set(transceiver.mid, { audio, analyser: sound.listen(stream) });
  };
  pc.onconnectionstatechange = () => {
    showStatus();
    if (pc.connectionState === 'connected' && $('notice').textContent.startsWith('No sound gets through')) notice();
    if (pc.connectionState === 'failed' && pc === call.pc) call.rpc.socket.close();
  };
  await pc.setLocalDescription();
  const answer = await call.rpc.call('offer', { participant_id: call.me, offer_id: 1, sdp: pc.localDescription.sdp });
  const sdp = answer.sdp.replace(/^(a=rtpmap:\d+ opus.*)$/gim, `$1\r\na=ptime:${call.config.frame_ms}`);
  await pc.setRemoteDescription({ type: 'answer', sdp });
  for (const { receiver } of pc.getTransceivers()) if ('jitterBufferTarget' in receiver) receiver.jitterBufferTarget = call.config.jitter.min;
  call.midMap = answer.mid_map;
  setTimeout(() => {
    if (pc !== call.pc || !call.wanted || pc.connectionState === 'connected') return;
    const ports = [...new Set([...answer.sdp.matchAll(/^a=candidate:\S+ \d \S+ \d+ (\S+) (\d+)/gim)].map(([, address, port]) => `${address}, UDP port ${port}`))].join('; ');
    notice(`No sound gets through yet: the way to ${ports} may be blocked. Whoever runs the server can open it in the firewall, or tell the right address with voice.udp_advertised.`, 'warn');
  }, CONNECT_MS);
  const parameters = call.sender.getParameters();
  if (parameters.encodings?.length) { parameters.encodings[0].maxBitrate = call.config.bitrate; await call.sender.setParameters(parameters).catch(() => {}); }
}
/** Errors that another attempt does not mend: not who we say, not allowed, full, not a voice room. */
const isFinal = error => [-32001, -32003, -32004, -32005].includes(error.code) || error.errcode === 'M_UNKNOWN_TOKEN';
async function reconnect() {
  if (call.reconnecting || !call.wanted) return;
  call.reconnecting = true;
  let attempt = 0, reason = null;
  for (; call.wanted && attempt < RECONNECTS_MAX && !reason; attempt++) {
    notice('The connection was lost. Connecting again …', 'warn');
    await wait(Math.min(300 * 2 ** attempt, RECONNECT_PAUSE_MAX_MS));
    if (!call.wanted) break;
    try { await connect(); notice(); break; } catch (error) { call.rpc.close(); if (isFinal(error)) reason = error; }
  }
  call.reconnecting = false;
  if (call.wanted && (reason || attempt >= RECONNECTS_MAX)) {
    await leave();
    notice(reason ? 'The connection was lost, and you could not join again: ' + inWords(reason) : 'The connection was lost for good. Join again to go on.', 'bad');
  }
}
function inWords(error) {
  const words = { [-32001]: 'The voice service does not accept who you say you are. Sign out and in again.', [-32003]: 'The room does not let you join its call.',
    [-32004]: `The room is full: it takes ${error.data?.user_limit ?? 'no more'} people.`, [-32005]: 'This is not a voice room. Make one here, or open the link of one.',
    [-32029]: 'Too many attempts at once. Wait a moment and try again.', [-32603]: 'The voice service cannot reach the homeserver now. Try again in a moment.' };
  return words[error.code] || error.message;
}
const nameOf = userId => userId.slice(1).split(':')[0];
function onNews(method, params) {
  call.news.push({ method, ...params, at: performance.now() });
  if (call.news.length > NEWS_KEPT_MAX) call.news.shift();
  const person = id => call.people.get(id);
  switch (method) {
    case 'user_joined': announce(nameOf(params.participant.user_id) + ' joined'); // falls through
    case 'user_updated': call.people.set(params.participant.participant_id, params.participant); break;
    case 'user_left':
      if (person(params.participant_id)) announce(nameOf(person(params.participant_id).user_id) + ' left');
      call.people.delete(params.participant_id);
      if (params.participant_id === call.me) onRemoved(params.reason);
      break;
    case 'speaking': if (person(params.participant_id)) person(params.participant_id).speaking = params.state === 'started'; break;
    case 'tracks': call.midMap = params.mid_map; break;
    case 'room_config': call.config = params.config; break;
    case 'muted_by': notice(params.server_muted ? 'You were muted in this room. Others do not hear you.' : 'You may speak again.', 'warn'); break;
    case 'server_going_away': notice('The server restarts. Connecting again in a moment …', 'warn'); break;
  }
  showPeople();
}
async function onRemoved(reason) {
  const words = { kicked: 'You were removed from the call.', forbidden: 'The room does not let you in any more.', replaced: 'You joined from another tab with the same sign-in, so this one left.' };
  if (reason === 'server_stopped' || !call.wanted) return;
  await leave(); notice(words[reason] || 'You left the call.', 'bad');
}
/** Into the call of a room: `room` with `via`, or a new one with `create` and `name`. Signs in first when asked to. */
async function enter({ homeserver, user, password, room, via, create, name, listed, listenOnly }) {
  notice();
  if (user && !matrix.token) await matrix.login(homeserver, user, password);
  const isNew = create || !room;
  if (!isNew) call.roomId = await matrix.enter(room, via);
  await sound.start({ listenOnly });
  if (isNew) call.roomId = await matrix.createVoiceRoom(name || 'Voice room', listed);
  call.wanted = true; call.muted = Boolean(listenOnly); call.deafened = false;
  try { await connect(); } catch (error) { call.wanted = false; call.rpc?.close(); call.pc?.close(); sound.stop(); throw Object.assign(error, { message: inWords(error) }); }
  $('roomname').textContent = await matrix.nameOf(call.roomId); $('roomname').title = call.roomId;
  $('link').value = inviteLink();
  show('call');
  showControls(); showPeople();
  return { roomId: call.roomId, participantId: call.me, userId: matrix.userId };
}
async function leave() {
  call.wanted = false;
  await call.rpc?.call('leave', { participant_id: call.me }).catch(() => {});
  call.rpc?.close(); call.pc?.close(); sound.stop();
  call.people.clear(); call.ears.clear();
  show(matrix.token ? 'rooms' : 'door');
}
async function setMuted(muted) {
  if (!muted && !sound.track) { await sound.open(); await call.sender.replaceTrack(sound.track); }
  if (sound.track) sound.track.enabled = !muted;
  call.muted = muted; showControls();
  return call.rpc.call(muted ? 'mute' : 'unmute', { participant_id: call.me });
}
async function setDeafened(deafened) {
  for (const ear of call.ears.values()) ear.audio.muted = deafened;
  call.deafened = deafened; showControls();
  return call.rpc.call('deafen', { participant_id: call.me, deafened });
}
async function useMicrophone(deviceId) {
  sound.device = deviceId;
  await sound.open();
  sound.track.enabled = !call.muted;
  await call.sender?.replaceTrack(sound.track);
}
function inviteLink() {
  const link = new URL(location.pathname, location.origin);
  link.searchParams.set('room', call.roomId);
  link.searchParams.set('via', matrix.serverName);
  if (matrix.base !== location.origin) link.searchParams.set('homeserver', matrix.base);
  return link.href;
}

// ---------------------------------------------------------------- Statistics
let before = null;
async function figures() {
  if (!call.pc) return null;
  const sum = { rtt_ms: null, packets_sent: 0, packets_received: 0, packets_lost: 0, jitter_ms: null, bytes_sent: 0, bytes_received: 0 };
  for (const report of (await call.pc.getStats()).values()) {
    if (report.type === 'candidate-pair' && report.nominated && report.currentRoundTripTime != null) sum.rtt_ms = report.currentRoundTripTime * 1000;
    if (report.type === 'outbound-rtp') { sum.packets_sent += report.packetsSent; sum.bytes_sent += report.bytesSent; }
    if (report.type === 'inbound-rtp') {
      sum.packets_received += report.packetsReceived; sum.packets_lost += report.packetsLost; sum.bytes_received += report.bytesReceived;
      if (report.packetsReceived) sum.jitter_ms = Math.max(sum.jitter_ms ?? 0, report.jitter * 1000);
    }
  }
  return sum;
}
async function showFigures() {
  const now = await figures().catch(() => null);
  if (!now || !call.wanted) { before = null; return; }
  const at = performance.now();
  const ms = x => x == null ? '–' : x.toFixed(x < 10 ? 1 : 0) + ' ms';
  const rate = (a, b) => before ? Math.max(0, (a - b) * 8 / (at - before.at)).toFixed(0) : '–';
  const total = now.packets_received + now.packets_lost;
  $('rtt').textContent = ms(now.rtt_ms); $('jitter').textContent = ms(now.jitter_ms);
  $('sent').textContent = now.packets_sent.toLocaleString() + ' packets';
  $('received').textContent = now.packets_received.toLocaleString() + ' packets';
  $('lost').textContent = `${now.packets_lost.toLocaleString()} (${total ? (100 * now.packets_lost / total).toFixed(1) : '0.0'} %)`;
  $('bitrate').textContent = `${rate(now.bytes_sent, before?.bytes_sent)} / ${rate(now.bytes_received, before?.bytes_received)} kbit/s`;
  before = { ...now, at };
}
setInterval(showFigures, 1000);
