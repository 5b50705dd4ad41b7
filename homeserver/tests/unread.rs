//! Unread counts equal a naive recomputation, whatever happened: random histories of sending, mentioning, threads, reading,
//! redacting, leaving and coming back, through the real router, on SQLite and on PostgreSQL.
//!
//! The recomputation keeps every event with whom it notified and looks through all of them each time; an event notifies by the
//! rules of its moment, and counts until it is read or redacted. A history is told again by its seed, which a failure names.

mod fixture;

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};
use services::{clock::Randomness, push::gateway::Unread as _};
use storage::Store;

use crate::fixture::{Client, TestServer, fresh_postgres, settings};

/// Histories on SQLite, in memory; on PostgreSQL fewer, which costs as much.
const HISTORIES: [u64; 2] = [24, 4];
const STEPS: usize = 60;
/// Everything is compared after so many steps.
const STEPS_BETWEEN_LOOKS: usize = 6;
/// Alice has power; carol waits for a word; dave wants mentions only, erin nothing and frank everything of the first room.
const NAMES: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "frank"];
const CAROL: usize = 2;
const DAVE: usize = 3;
const ERIN: usize = 4;
const FRANK: usize = 5;
/// Wants the shared thread counts told apart.
const BY_THREAD: &str =
    "%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A1%2C%22unread_thread_notifications%22%3Atrue%7D%7D%7D";
const TOGETHER: &str = "%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A1%7D%7D%7D";

/// Notifications and highlights.
type Counts = (i64, i64);

/// What an event is, as far as rules ask.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Plain,
    Tea,
    Notice,
    Mention(usize),
    MentionRoom,
    /// A name in the text, as older clients mention.
    Named(usize),
    Reaction,
    Edit,
    State,
    Redaction,
    Join,
}

/// An event as the recomputation keeps it.
struct Event {
    id: String,
    kind: Kind,
    /// The thread it is in, by its root's place in the room; `None` for the main timeline.
    thread: Option<usize>,
    /// Whom it notified, and whether loudly.
    notified: BTreeMap<usize, bool>,
    is_redacted: bool,
}

#[derive(Default)]
struct Room {
    id: String,
    events: Vec<Event>,
    /// Who is in it, and since which event.
    joined: BTreeMap<usize, usize>,
    /// How far each user has read each lane: the place of the last event read.
    read: BTreeMap<(usize, Option<usize>), usize>,
}

impl Room {
    /// Whom an event of `sender` notifies, and how: the default rules and those of the cast, in words.
    fn notified(&self, is_first_room: bool, sender: usize, kind: &Kind) -> BTreeMap<usize, bool> {
        let mut notified = BTreeMap::new();
        for reader in self.joined.keys().copied().filter(|reader| *reader != sender) {
            let is_own = |user: usize| is_first_room && reader == user;
            let is_loud = match kind {
                _ if is_own(ERIN) => continue,
                Kind::Notice | Kind::Reaction | Kind::Edit | Kind::Join => continue,
                Kind::Mention(whom) | Kind::Named(whom) if *whom == reader => true,
                // Only who has power may call everybody.
                Kind::MentionRoom if sender == 0 => true,
                Kind::Tea if reader == CAROL => true,
                _ if is_own(DAVE) => continue,
                Kind::State | Kind::Redaction if is_own(FRANK) => false,
                Kind::State | Kind::Redaction => continue,
                _ => false,
            };
            notified.insert(reader, is_loud);
        }
        notified
    }

    fn add(&mut self, is_first_room: bool, id: String, sender: usize, kind: Kind, thread: Option<usize>) {
        let notified = self.notified(is_first_room, sender, &kind);
        let place = self.events.len();
        self.events.push(Event { id, kind: kind.clone(), thread, notified, is_redacted: false });
        if kind == Kind::Join {
            self.joined.insert(sender, place);
            self.read.retain(|(reader, _), _| *reader != sender);
        }
        // Who writes has read.
        self.reads(sender, thread, place);
    }

    fn reads(&mut self, reader: usize, lane: Option<usize>, place: usize) {
        let read = self.read.entry((reader, lane)).or_insert(place);
        *read = place.max(*read);
    }

    /// The recomputation: the main timeline, and the threads with anything unread.
    fn unread(&self, reader: usize) -> (Counts, BTreeMap<String, Counts>) {
        let mut lanes: BTreeMap<Option<usize>, Counts> = BTreeMap::new();
        let joined = self.joined[&reader];
        for (place, event) in self.events.iter().enumerate().filter(|(_, event)| !event.is_redacted) {
            let read = self.read.get(&(reader, event.thread)).copied().unwrap_or(0).max(joined);
            if let Some(is_loud) = event.notified.get(&reader).filter(|_| place > read) {
                let counts = lanes.entry(event.thread).or_default();
                counts.0 += 1;
                counts.1 += i64::from(*is_loud);
            }
        }
        let main = lanes.remove(&None).unwrap_or_default();
        (main, lanes.into_iter().map(|(root, counts)| (self.events[root.unwrap()].id.clone(), counts)).collect())
    }

    fn unread_together(&self, reader: usize) -> Counts {
        let (main, threads) = self.unread(reader);
        threads.values().fold(main, |sum, lane| (sum.0 + lane.0, sum.1 + lane.1))
    }
}

/// The cast, the rooms and the course of a history.
struct History {
    server: TestServer,
    users: Vec<Client>,
    rooms: Vec<Room>,
    since: Vec<String>,
    dice: Randomness,
    told: String,
}

impl History {
    async fn begin(store: Store, seed: u64) -> Self {
        let server = TestServer::start_on(store, settings()).await;
        let mut users = Vec::new();
        for name in NAMES {
            users.push(server.user(&format!("{name}{seed}")).await);
        }
        let mut history = Self {
            server,
            users,
            rooms: Vec::new(),
            since: Vec::new(),
            dice: Randomness::seeded(seed),
            told: format!("history {seed}\n"),
        };
        for number in 0..2 {
            // The clock stands: what tells the rooms of one user apart is their content.
            let wish = json!({ "preset": "public_chat", "creation_content": { "org.example.number": number } });
            let made = history.users[0].post("/_matrix/client/v3/createRoom", wish).await;
            let id = made.ok()["room_id"].as_str().unwrap().to_owned();
            history.rooms.push(Room { id, ..Room::default() });
            // What came before the first look counts for nobody.
            history.rooms[number].add(number == 0, String::new(), 0, Kind::Join, None);
        }
        history.set_rules().await;
        for user in 1..NAMES.len() {
            for room in 0..2 {
                history.join(user, room).await;
            }
        }
        for user in 0..NAMES.len() {
            let token = history.users[user].sync_token().await;
            history.since.push(token);
        }
        history
    }

    async fn set_rules(&self) {
        let rules = "/_matrix/client/v3/pushrules/global";
        let room_id = &self.rooms[0].id;
        let loud = json!({ "pattern": "tea", "actions": ["notify", { "set_tweak": "highlight" }] });
        self.users[CAROL].put(&format!("{rules}/content/tea"), loud).await.ok();
        self.users[DAVE].put(&format!("{rules}/room/{room_id}"), json!({ "actions": [] })).await.ok();
        let here = json!({ "kind": "event_match", "key": "room_id", "pattern": room_id });
        let silence = json!({ "conditions": [here], "actions": [] });
        self.users[ERIN].put(&format!("{rules}/override/{room_id}"), silence).await.ok();
        self.users[FRANK].put(&format!("{rules}/room/{room_id}"), json!({ "actions": ["notify"] })).await.ok();
    }

    fn below(&self, bound: usize) -> usize {
        usize::try_from(self.dice.below(bound as u64)).unwrap()
    }

    /// A joined user other than alice, or alice.
    fn member(&self, room: usize) -> usize {
        let members: Vec<usize> = self.rooms[room].joined.keys().copied().collect();
        members[self.below(members.len())]
    }

    /// A random event that `fits`.
    fn event(&self, room: usize, fits: impl Fn(&Event) -> bool) -> Option<usize> {
        let places: Vec<usize> = (0..self.rooms[room].events.len())
            .filter(|place| {
                let event = &self.rooms[room].events[*place];
                !event.id.is_empty() && fits(event)
            })
            .collect();
        (!places.is_empty()).then(|| places[self.below(places.len())])
    }

    async fn join(&mut self, user: usize, room: usize) {
        let client = &self.users[user];
        client.post(&format!("/_matrix/client/v3/join/{}", self.rooms[room].id), json!({})).await.ok();
        let state = format!(
            "/_matrix/client/v3/rooms/{}/state/m.room.member/{}?format=event",
            self.rooms[room].id, client.user_id
        );
        let id = client.get(&state).await.ok()["event_id"].as_str().unwrap().to_owned();
        self.rooms[room].add(room == 0, id, user, Kind::Join, None);
    }

    async fn send(&mut self, room: usize) {
        let sender = self.member(room);
        let whom = self.below(NAMES.len());
        let kinds = [
            Kind::Plain,
            Kind::Plain,
            Kind::Tea,
            Kind::Notice,
            Kind::Mention(whom),
            Kind::MentionRoom,
            Kind::Named(whom),
            Kind::Reaction,
            Kind::Edit,
        ];
        let kind = kinds[self.below(kinds.len())].clone();
        let is_about = matches!(kind, Kind::Reaction | Kind::Edit);
        // A thread begins with an event of the main timeline; what is about a reply is in its thread.
        let fits = |event: &Event| {
            matches!(event.kind, Kind::Plain | Kind::Tea | Kind::Notice) && (is_about || event.thread.is_none())
        };
        let about = self.event(room, fits);
        if is_about && about.is_none() {
            return;
        }
        let thread = match about.map(|place| &self.rooms[room].events[place]) {
            // A redacted event does not say any more which thread it was in.
            Some(event) if is_about => event.thread.filter(|_| !event.is_redacted),
            _ => about.filter(|_| self.below(2) == 0),
        };
        let about_id = about.map(|place| self.rooms[room].events[place].id.clone());
        let (event_type, content) = self.content(&kind, about_id.as_deref().filter(|_| is_about || thread.is_some()));
        let place = self.rooms[room].events.len();
        let path = format!("/_matrix/client/v3/rooms/{}/send/{event_type}/{place}", self.rooms[room].id);
        let id = self.users[sender].put(&path, content).await.ok()["event_id"].as_str().unwrap().to_owned();
        let _ = writeln!(self.told, "{place} in {room}: {} sends {kind:?}, thread {thread:?}", NAMES[sender]);
        self.rooms[room].add(room == 0, id, sender, kind, thread);
    }

    fn content(&self, kind: &Kind, about: Option<&str>) -> (&'static str, Value) {
        let relation = |rel_type: &str| json!({ "rel_type": rel_type, "event_id": about });
        let mut content = json!({ "msgtype": "m.text", "body": "some words", "m.mentions": {} });
        match kind {
            Kind::Reaction => {
                let mut relation = relation("m.annotation");
                relation["key"] = json!(self.dice.letters(6));
                return ("m.reaction", json!({ "m.relates_to": relation }));
            }
            Kind::Edit => {
                content["m.new_content"] = content.clone();
                content["m.relates_to"] = relation("m.replace");
                return ("m.room.message", content);
            }
            Kind::Tea => content["body"] = json!("a cup of tea"),
            Kind::Notice => content["msgtype"] = json!("m.notice"),
            Kind::Mention(whom) => content["m.mentions"] = json!({ "user_ids": [self.users[*whom].user_id] }),
            Kind::MentionRoom => content["m.mentions"] = json!({ "room": true }),
            Kind::Named(whom) => {
                let name = self.users[*whom].user_id.split(':').next().unwrap()[1..].to_owned();
                content = json!({ "msgtype": "m.text", "body": format!("are you there, {name}?") });
            }
            _ => {}
        }
        if about.is_some() {
            content["m.relates_to"] = relation("m.thread");
        }
        ("m.room.message", content)
    }

    async fn read(&mut self, room: usize) {
        let reader = self.member(room);
        let kind = ["m.read", "m.read.private"][self.below(2)];
        let lane = self.below(3);
        let Some(place) = self.event(room, |event| match lane {
            1 => event.thread.is_none(),
            2 => event.thread.is_some(),
            _ => true,
        }) else {
            return;
        };
        let thread = self.rooms[room].events[place].thread;
        let id = self.rooms[room].events[place].id.clone();
        let body = match (lane, thread) {
            (1, _) => json!({ "thread_id": "main" }),
            (2, Some(root)) => json!({ "thread_id": self.rooms[room].events[root].id }),
            _ => json!({}),
        };
        let path = format!("/_matrix/client/v3/rooms/{}/receipt/{kind}/{id}", self.rooms[room].id);
        self.users[reader].post(&path, body.clone()).await.ok();
        let _ = writeln!(self.told, "{} reads up to {place} of {room}: {kind} {body}", NAMES[reader]);
        let lanes: Vec<Option<usize>> = match lane {
            0 => {
                let threads = self.rooms[room].events.iter().filter_map(|event| event.thread.map(Some));
                threads.chain([None]).collect()
            }
            _ => vec![thread],
        };
        for lane in lanes {
            self.rooms[room].reads(reader, lane, place);
        }
    }

    async fn redact(&mut self, room: usize) {
        let Some(target) = self.event(room, |event| !matches!(event.kind, Kind::Join | Kind::State | Kind::Redaction))
        else {
            return;
        };
        let place = self.rooms[room].events.len();
        let (room_id, id) = (&self.rooms[room].id, &self.rooms[room].events[target].id);
        let path = format!("/_matrix/client/v3/rooms/{room_id}/redact/{id}/{place}");
        let id = self.users[0].put(&path, json!({})).await.ok()["event_id"].as_str().unwrap().to_owned();
        let _ = writeln!(self.told, "{place} in {room}: alice redacts {target}");
        self.rooms[room].events[target].is_redacted = true;
        self.rooms[room].add(room == 0, id, 0, Kind::Redaction, None);
    }

    async fn rename(&mut self, room: usize) {
        let place = self.rooms[room].events.len();
        let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.name", self.rooms[room].id);
        let set = self.users[0].put(&path, json!({ "name": format!("Room {place}") })).await.ok();
        let _ = writeln!(self.told, "{place} in {room}: alice renames it");
        let id = set["event_id"].as_str().unwrap().to_owned();
        self.rooms[room].add(room == 0, id, 0, Kind::State, None);
    }

    async fn come_or_go(&mut self, room: usize) {
        let user = 1 + self.below(NAMES.len() - 1);
        let place = self.rooms[room].events.len();
        if self.rooms[room].joined.remove(&user).is_none() {
            let _ = writeln!(self.told, "{place} in {room}: {} joins", NAMES[user]);
            return self.join(user, room).await;
        }
        let _ = writeln!(self.told, "{place} in {room}: {} leaves", NAMES[user]);
        let path = format!("/_matrix/client/v3/rooms/{}/leave", self.rooms[room].id);
        self.users[user].post(&path, json!({})).await.ok();
    }

    async fn step(&mut self) {
        let room = self.below(2);
        match self.below(12) {
            0..=5 => self.send(room).await,
            6..=8 => self.read(room).await,
            9 => self.redact(room).await,
            10 => self.rename(room).await,
            _ => self.come_or_go(room).await,
        }
    }

    /// Everything clients are told of what is unread, against the recomputation.
    async fn look(&mut self) {
        for (user, name) in NAMES.into_iter().enumerate() {
            let client = self.users[user].clone();
            let sync = async |query: String| client.get(&format!("/_matrix/client/v3/sync?{query}")).await.ok();
            let by_thread = sync(format!("filter={BY_THREAD}")).await;
            let together = sync(format!("filter={TOGETHER}")).await;
            let news = sync(format!("filter={TOGETHER}&since={}", self.since[user])).await;
            self.since[user] = news["next_batch"].as_str().unwrap().to_owned();
            let mut badge = 0;
            for (number, room) in self.rooms.iter().enumerate() {
                let context = format!("{name}, room {number}, after:\n{}", self.told);
                let joined = |answer: &Value| answer["rooms"]["join"][&room.id].clone();
                if !room.joined.contains_key(&user) {
                    assert!(joined(&together).is_null(), "{context}");
                    continue;
                }
                let (main, threads) = room.unread(user);
                assert_eq!(counts(&joined(&by_thread)["unread_notifications"]), main, "main timeline of {context}");
                assert_eq!(thread_counts(&joined(&by_thread)), threads, "threads of {context}");
                let all = room.unread_together(user);
                assert_eq!(counts(&joined(&together)["unread_notifications"]), all, "all of {context}");
                if !joined(&news).is_null() {
                    assert_eq!(counts(&joined(&news)["unread_notifications"]), all, "news of {context}");
                }
                badge += all.0;
            }
            let user_id = ruma::OwnedUserId::try_from(client.user_id.as_str()).unwrap();
            let nid = self.server.context.numbers.user(&user_id).await.unwrap();
            let told = self.server.services.sync.notifications(nid).await.unwrap();
            assert_eq!(i64::try_from(told).unwrap(), badge, "the badge of {}, after:\n{}", NAMES[user], self.told);
        }
    }
}

fn counts(told: &Value) -> Counts {
    (told["notification_count"].as_i64().unwrap(), told["highlight_count"].as_i64().unwrap())
}

fn thread_counts(room: &Value) -> BTreeMap<String, Counts> {
    let threads = room["unread_thread_notifications"].as_object().into_iter().flatten();
    threads.map(|(root, told)| (root.clone(), counts(told))).filter(|(_, counts)| *counts != (0, 0)).collect()
}

async fn tell(store: Store, seed: u64) {
    let mut history = History::begin(store, seed).await;
    for step in 1..=STEPS {
        history.step().await;
        if step % STEPS_BETWEEN_LOOKS == 0 {
            history.look().await;
        }
    }
}

#[tokio::test]
async fn unread_counts_equal_a_recomputation_over_random_histories_on_sqlite() {
    for seed in 1..=HISTORIES[0] {
        let store = Store::connect(&storage::Settings::new("sqlite::memory:")).await.unwrap();
        tell(store, seed).await;
    }
}

#[tokio::test]
async fn unread_counts_equal_a_recomputation_over_random_histories_on_postgresql() {
    for seed in 101..=100 + HISTORIES[1] {
        // Each on tables of its own: servers of tests share their seed, and would give out the same tokens twice.
        let store = Store::connect(&storage::Settings::new(fresh_postgres().await)).await.unwrap();
        tell(store, seed).await;
    }
}
