//! What does one forwarded packet cost? Real clients over loopback, the CPU time of the SFU's threads read from Linux.
//!
//! `forwarding_cost [speakers] [listeners] [seconds] [asleep]`. Speakers also listen. The figure includes everything:
//! receiving, decryption, routing, encryption per listener, sending, and (on loopback) the kernel's delivery to the
//! receiver. On loopback the sender also pays for waking each receiver, which no network card asks for: with `asleep` the
//! listeners stop reading once connected, so that nobody is woken.

#[path = "../tests/support/talker.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod talker;

use std::{
    env, fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use appservice_voice::{
    room::{MediaRule, ParticipantId},
    sfu::{Ports, Sfu},
};
use talker::{Talker, until};

const OPUS_FRAME: Duration = Duration::from_millis(20);
/// As long as an Opus frame of 64 kbit/s.
const PAYLOAD: [u8; 160] = [0x5a; 160];
const OPEN: MediaRule = MediaRule { may_send: true, may_hear: true };

fn main() -> anyhow::Result<()> {
    let argument = |at: usize, default: u64| env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let asleep = env::args().nth(4).as_deref() == Some("asleep");
    let (speakers, listeners, seconds) = (argument(1, 3), argument(2, 30), argument(3, 10));
    let (control, _happenings) = tokio::sync::mpsc::channel(10_000);
    let ports = Ports { bind: [127, 0, 0, 1].into(), first: 0, last: 0, shards: 1, advertised: Vec::new() };
    let sfu = Sfu::start(&ports, &control)?;
    let room: Arc<str> = "!room:example.org".into();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;

    let (speaking, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut threads = Vec::new();
    let mut ids = Vec::new();
    for number in 0..speakers + listeners {
        let id = ParticipantId::new(&format!("p{number}"));
        sfu.admit(&id, &room, OPEN);
        let (mut talker, offer) = Talker::new(4);
        talker.accept(&runtime.block_on(sfu.offer(&id, 1, offer))?.sdp);
        until(&mut [&mut talker], |talkers| talkers[0].connected);
        let (speaking, over) = (speaking.clone(), over.clone());
        threads.push(thread::spawn(move || {
            let mut next_at = Instant::now();
            while !over.load(Ordering::Relaxed) {
                if asleep && number >= speakers {
                    thread::park_timeout(Duration::from_millis(200));
                    continue;
                }
                if number < speakers && speaking.load(Ordering::Relaxed) && Instant::now() >= next_at {
                    next_at = next_at.max(Instant::now() - OPUS_FRAME) + OPUS_FRAME;
                    talker.speak(&PAYLOAD, -20);
                }
                talker.step(OPUS_FRAME.min(next_at.saturating_duration_since(Instant::now())));
                talker.heard.clear();
            }
        }));
        ids.push(id);
    }
    speaking.store(true, Ordering::Relaxed);
    thread::sleep(Duration::from_secs(2));

    let packets = |sfu: &Sfu| -> u64 {
        ids.iter().filter_map(|id| runtime.block_on(sfu.stats(id))).map(|stats| stats.packets_out).sum()
    };
    let (packets_before, cpu_before, at) = (packets(&sfu), cpu_time()?, Instant::now());
    thread::sleep(Duration::from_secs(seconds));
    let (forwarded, cpu, elapsed) = (packets(&sfu) - packets_before, cpu_time()? - cpu_before, at.elapsed());
    over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a client does not panic");
    }
    let expected = speakers as f64 * (speakers + listeners - 1) as f64 * 50.0;
    println!("{speakers} speakers, {} participants, {:.1} s", speakers + listeners, elapsed.as_secs_f64());
    println!("forwarded {:.0} packets a second of {expected:.0}", forwarded as f64 / elapsed.as_secs_f64());
    println!(
        "SFU {:.1} % of a core, {:.2} µs per forwarded packet",
        100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / forwarded as f64
    );
    println!(
        "resident {} in all, clients included",
        fs::read_to_string("/proc/self/status")?
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap_or("?")
            .trim()
    );
    Ok(())
}

/// CPU time of the SFU's threads so far.
fn cpu_time() -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.starts_with("voice-") {
            let schedstat = fs::read_to_string(task.join("schedstat"))?;
            total += Duration::from_nanos(schedstat.split_whitespace().next().unwrap_or("0").parse()?);
        }
    }
    Ok(total)
}
