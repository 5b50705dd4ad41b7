//! Where forks meet, everybody finds the same state.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};
use room::{
    event::{create_event_id, kind},
    graph::AuthGraph,
    resolve::{self, ResolveError, Start, Step},
    state::{EventNumber, State, StateKeyNumber},
    versions,
};
use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    state_res::{self, StateMap as RumaStateMap, utils::event_id_set::EventIdSet},
};
use serde_json::{Value, json};

use crate::world::{ALICE, BOB, CAROL, StateMap, World};

/// A room with Alice in charge, Bob with a power of 50 and Carol with none, all joined.
fn peopled(version: &str) -> (World, OwnedEventId) {
    let (mut world, mut last) = World::new(version);
    let mut users = json!({BOB: 50});
    if !world.rules.authorization.explicitly_privilege_room_creators {
        users[ALICE] = json!(100);
    }
    let steps = [
        (ALICE, kind::POWER_LEVELS, "", json!({"users": users})),
        (ALICE, kind::JOIN_RULES, "", json!({"join_rule": "public"})),
        (BOB, kind::MEMBER, BOB, json!({"membership": "join"})),
        (CAROL, kind::MEMBER, CAROL, json!({"membership": "join"})),
    ];
    for (sender, kind, key, content) in steps {
        last = world.state(&[&last], sender, kind, key, content);
    }
    (world, last)
}

/// The state as ruma alone resolves it, from whole states and whole auth chains.
fn unreduced(world: &World, states: &[&StateMap]) -> StateMap {
    let chain = |roots: &mut dyn Iterator<Item = &OwnedEventId>| -> BTreeSet<OwnedEventId> {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<_> = roots.flat_map(|id| world.events[id].auth_events.clone()).collect();
        while let Some(id) = todo.pop() {
            if seen.insert(id.clone()) {
                todo.extend(world.events[&id].auth_events.clone());
            }
        }
        seen
    };
    let maps: Vec<RumaStateMap<OwnedEventId>> = states
        .iter()
        .map(|state| {
            let entries = state.iter();
            entries.map(|((kind, key), id)| ((StateEventType::from(kind.as_str()), key.clone()), id.clone())).collect()
        })
        .collect();
    let chains: Vec<EventIdSet<OwnedEventId>> =
        states.iter().map(|state| chain(&mut state.values()).into_iter().collect()).collect();
    let resolved = state_res::resolve(
        &world.rules.authorization,
        versions::state_resolution(world.rules),
        maps.iter(),
        chains,
        |id: &EventId| world.events.get(id).cloned(),
        |conflicted| {
            let ends: BTreeSet<&OwnedEventId> = conflicted.values().flatten().collect();
            let below: BTreeSet<OwnedEventId> =
                ends.iter().map(|id| (*id).clone()).chain(chain(&mut ends.iter().copied())).collect();
            let leads_to_an_end = |id: &OwnedEventId| {
                ends.contains(id) || chain(&mut std::iter::once(id)).iter().any(|id| ends.contains(id))
            };
            Some(below.into_iter().filter(leads_to_an_end).collect())
        },
    )
    .unwrap();
    resolved.into_iter().map(|((kind, key), id)| ((kind.to_string(), key), id)).collect()
}

fn standing(state: &StateMap, kind: &str, key: &str) -> Option<OwnedEventId> {
    state.get(&(kind.to_owned(), key.to_owned())).cloned()
}

#[test]
fn a_demotion_on_one_fork_undoes_what_the_demoted_did_on_the_other() {
    for version in ["6", "10", "11", "12"] {
        let (mut world, base) = peopled(version);
        let mut users = json!({BOB: 0});
        if version != "12" {
            users[ALICE] = json!(100);
        }
        let demotion = world.state(&[&base], ALICE, kind::POWER_LEVELS, "", json!({"users": users}));
        let old = world.state(&[&demotion], ALICE, kind::TOPIC, "", json!({"topic": "alice's"}));
        let new = world.state(&[&base], BOB, kind::TOPIC, "", json!({"topic": "bob's"}));

        let state = world.before(&[&old, &new]);

        assert_eq!(standing(&state, kind::POWER_LEVELS, ""), Some(demotion), "version {version}");
        assert_eq!(standing(&state, kind::TOPIC, ""), Some(old), "version {version}");
    }
}

#[test]
fn of_two_topics_of_equals_the_later_stands() {
    for version in ["6", "12"] {
        let (mut world, base) = peopled(version);
        let first = world.state(&[&base], BOB, kind::TOPIC, "", json!({"topic": "1"}));
        let second = world.state(&[&base], ALICE, kind::TOPIC, "", json!({"topic": "2"}));

        let state = world.before(&[&second, &first]);

        assert_eq!(standing(&state, kind::TOPIC, ""), Some(second), "version {version}");
    }
}

#[test]
fn a_join_that_raced_with_closing_the_room_does_not_stand() {
    for version in ["6", "11", "12"] {
        let (mut world, base) = peopled(version);
        let closed = world.state(&[&base], ALICE, kind::JOIN_RULES, "", json!({"join_rule": "invite"}));
        let dave = "@dave:d.example";
        let joined = world.state(&[&base], dave, kind::MEMBER, dave, json!({"membership": "join"}));

        let state = world.before(&[&closed, &joined]);

        assert_eq!(standing(&state, kind::JOIN_RULES, ""), Some(closed));
        assert_eq!(standing(&state, kind::MEMBER, dave), None, "version {version}");
    }
}

#[test]
fn of_two_moderators_who_ban_each_other_the_one_with_more_power_remains() {
    for version in ["6", "12"] {
        let (mut world, base) = peopled(version);
        let bobs = world.state(&[&base], BOB, kind::MEMBER, CAROL, json!({"membership": "ban"}));
        let alices = world.state(&[&base], ALICE, kind::MEMBER, BOB, json!({"membership": "ban"}));

        let state = world.before(&[&bobs, &alices]);

        assert_eq!(standing(&state, kind::MEMBER, BOB), Some(alices));
        let carol = standing(&state, kind::MEMBER, CAROL).unwrap();
        assert_ne!(carol, bobs, "version {version}: the banned moderator's ban stood");
    }
}

/// The history of the power levels is followed even where all forks agree on the newest, which
/// none of the conflicted events knows.
#[test]
fn a_conflict_older_than_the_power_levels_all_agree_on_is_resolved() {
    for version in ["6", "12"] {
        let (mut world, base) = peopled(version);
        let one = world.state(&[&base], BOB, kind::TOPIC, "", json!({"topic": "1"}));
        let other = world.state(&[&base], BOB, kind::TOPIC, "", json!({"topic": "2"}));
        let mut powers = one;
        for power in [40, 20] {
            let mut users = json!({BOB: power});
            if version != "12" {
                users[ALICE] = json!(100);
            }
            powers = world.state(&[&powers], ALICE, kind::POWER_LEVELS, "", json!({"users": users}));
        }
        let ours = world.after[&powers].clone();
        let mut theirs = ours.clone();
        theirs.insert((kind::TOPIC.to_owned(), String::new()), other);

        let state = world.resolve([&ours, &theirs]);

        assert_eq!(state, unreduced(&world, &[&ours, &theirs]));
        assert_eq!(standing(&state, kind::POWER_LEVELS, ""), Some(powers), "version {version}");
    }
}

/// Two names ruma takes for one type stay two state events.
#[test]
fn types_that_ruma_takes_for_one_another_stay_apart() {
    let (stable, unstable) = ("m.call.member", "org.matrix.msc3401.call.member");
    assert_eq!(StateEventType::from(stable), StateEventType::from(unstable));
    let (mut world, base) = peopled("11");
    let one = world.state(&[&base], ALICE, stable, "_x", json!({"n": 1}));
    let other = world.state(&[&base], ALICE, unstable, "_x", json!({"n": 2}));

    let state = world.before(&[&one, &other]);

    assert_eq!(standing(&state, stable, "_x"), Some(one));
    assert_eq!(standing(&state, unstable, "_x"), Some(other));
}

#[test]
fn states_that_agree_need_no_resolution_and_no_graph() {
    let rules = versions::rules(&ruma::RoomVersionId::V12).unwrap();
    let state: State = [(StateKeyNumber(1), EventNumber(9))].into_iter().collect();
    let start = resolve::start(rules, &[state.clone(), state.clone()], &AuthGraph::default());
    assert!(matches!(start, Ok(Start::Agreed(agreed)) if agreed == state));
    let none = resolve::start(rules, &[], &AuthGraph::default());
    assert!(matches!(none, Ok(Start::Agreed(agreed)) if agreed.is_empty()));
}

#[test]
fn a_fork_over_events_the_graph_does_not_know_names_them() {
    let rules = versions::rules(&ruma::RoomVersionId::V12).unwrap();
    let state = |event| -> State { [(StateKeyNumber(1), EventNumber(event))].into_iter().collect() };
    let unknown = resolve::start(rules, &[state(1), state(2)], &AuthGraph::default()).unwrap_err();
    assert_eq!(unknown.0, [EventNumber(1)]);
}

#[test]
fn a_resolution_that_is_not_given_what_it_asks_for_says_so() {
    let (mut graph, rules) = (AuthGraph::default(), versions::rules(&"11".try_into().unwrap()));
    graph.insert(EventNumber(1), &[], false).unwrap();
    graph.insert(EventNumber(2), &[EventNumber(1)], false).unwrap();
    let state = |event| -> State { [(StateKeyNumber(1), EventNumber(event))].into_iter().collect() };
    let start = resolve::start(rules.unwrap(), &[state(1), state(2)], &graph).unwrap();
    let Start::Forked(mut resolution) = start else { panic!("the states differ") };

    let Ok(Step::Events(wanted)) = resolution.step() else { panic!("it knows no event yet") };

    assert_eq!(wanted, [EventNumber(1), EventNumber(2)]);
    let refused = resolution.supply_events([]);
    assert!(matches!(refused, Err(ResolveError::EventsMissing(missing)) if missing == wanted));
}

#[test]
fn the_resolved_state_of_version_twelve_keeps_the_create_event_that_names_the_room() {
    let (mut world, base) = peopled("12");
    let a = world.state(&[&base], BOB, kind::MEMBER, BOB, json!({"membership": "leave"}));
    let b = world.state(&[&base], ALICE, kind::MEMBER, BOB, json!({"membership": "ban"}));
    let state = world.before(&[&a, &b]);
    assert_eq!(standing(&state, kind::CREATE, ""), create_event_id(&world.room_id));
    assert_eq!(standing(&state, kind::MEMBER, BOB), Some(b));
}

/// One thing somebody tries to do, on top of one or two recent events.
#[derive(Clone, Debug)]
struct Move {
    actor: usize,
    target: usize,
    action: usize,
    power: i64,
    on: [prop::sample::Index; 2],
    delay_ms: u64,
}

fn any_move() -> impl Strategy<Value = Move> {
    let on = any::<[prop::sample::Index; 2]>();
    (0..4_usize, 0..4_usize, 0..9_usize, 0..3_i64, on, 0..2_u64).prop_map(
        |(actor, target, action, power, on, delay_ms)| Move { actor, target, action, power: power * 50, on, delay_ms },
    )
}

const PEOPLE: [&str; 4] = [ALICE, BOB, CAROL, "@dave:d.example"];

/// What the move would send: (type, state key, content).
fn wish(world: &World, what: &Move) -> (&'static str, String, Value) {
    let target = PEOPLE[what.target].to_owned();
    let actor = PEOPLE[what.actor].to_owned();
    let member = |key: String, membership| (kind::MEMBER, key, json!({"membership": membership}));
    match what.action {
        0 => (kind::TOPIC, String::new(), json!({"topic": what.power})),
        1 | 2 => {
            let mut users = json!({BOB: 50, PEOPLE[what.target]: what.power});
            if world.rules.authorization.explicitly_privilege_room_creators {
                users.as_object_mut().unwrap().remove(ALICE);
            } else {
                users[ALICE] = json!(100);
            }
            (kind::POWER_LEVELS, String::new(), json!({"users": users}))
        }
        3 => member(target, "ban"),
        4 => member(target, "leave"),
        5 => member(target, "invite"),
        6 => member(actor, "join"),
        7 => member(actor, "leave"),
        _ => {
            let rule = if what.power == 0 { "invite" } else { "public" };
            (kind::JOIN_RULES, String::new(), json!({"join_rule": rule}))
        }
    }
}

/// Plays the moves that the rules allow; gives the events they became, oldest first.
fn play(world: &mut World, base: OwnedEventId, moves: &[Move]) -> Vec<OwnedEventId> {
    let mut told = vec![base];
    for what in moves {
        let pick = |index: &prop::sample::Index| {
            let recent = told.len().min(6);
            told[told.len() - 1 - index.index(recent)].clone()
        };
        let [a, b] = [pick(&what.on[0]), pick(&what.on[1])];
        let prev: Vec<&OwnedEventId> = if a == b { vec![&a] } else { vec![&a, &b] };
        // Equal times now and then, so that ids must decide.
        world.clock_ms -= 1 - what.delay_ms;
        let (kind, key, content) = wish(world, what);
        let before = world.before(&prev);
        let event = world.make(&prev, PEOPLE[what.actor], kind, Some(&key), content);
        if world.allows(&event, &before).is_ok() {
            told.push(world.keep(event, before));
        }
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_history_resolves_as_ruma_alone_resolves_it_in_whatever_order(
        version in prop::sample::select(&["6", "9", "11", "12"][..]),
        moves in vec(any_move(), 1..32),
        forks in vec(any::<prop::sample::Index>(), 2..5),
    ) {
        let (mut world, base) = peopled(version);
        let told = play(&mut world, base, &moves);
        let states: Vec<&StateMap> =
            forks.iter().map(|fork| &world.after[&told[fork.index(told.len())]]).collect();

        let ours = world.resolve(states.iter().copied());

        prop_assert_eq!(&ours, &unreduced(&world, &states));
        let backwards = world.resolve(states.iter().rev().copied());
        prop_assert_eq!(&ours, &backwards);
        let twice = world.resolve(states.iter().chain(&states).copied());
        prop_assert_eq!(&ours, &twice);
    }

    /// States no honest room could be in, as another server may claim them: any of the events that
    /// ever stood at a key, or none.
    #[test]
    fn any_claimed_states_resolve_as_ruma_alone_resolves_them_in_whatever_order(
        version in prop::sample::select(&["6", "11", "12"][..]),
        moves in vec(any_move(), 8..40),
        claims in vec(vec(any::<prop::sample::Index>(), 12), 2..4),
    ) {
        let (mut world, base) = peopled(version);
        let told = play(&mut world, base, &moves);
        let mut stood: BTreeMap<(String, String), Vec<OwnedEventId>> = BTreeMap::new();
        for event in world.events.values() {
            let key = event.state_key.clone().unwrap();
            stood.entry((event.kind.clone(), key)).or_default().push(event.event_id.clone());
        }
        let last = &world.after[told.last().unwrap()];
        let states: Vec<StateMap> = claims
            .iter()
            .map(|claim| {
                let mut state = last.clone();
                for ((key, events), claim) in stood.iter().zip(claim) {
                    // One more than there are events stands for none; a room has its create event.
                    let claimed = events.get(claim.index(events.len() + 1));
                    match claimed {
                        Some(event) => state.insert(key.clone(), event.clone()),
                        None if key.0 == kind::CREATE => None,
                        None => state.remove(key),
                    };
                }
                state
            })
            .collect();

        let ours = world.resolve(&states);

        prop_assert_eq!(&ours, &unreduced(&world, &states.iter().collect::<Vec<_>>()));
        prop_assert_eq!(&ours, &world.resolve(states.iter().rev()));
    }

    #[test]
    fn chains_differences_and_subgraphs_are_what_plain_walks_find(
        edges in vec(vec(any::<prop::sample::Index>(), 0..4), 1..90),
        sets in vec(vec(any::<prop::sample::Index>(), 0..5), 1..4),
    ) {
        let mut graph = AuthGraph::default();
        let mut witnesses: BTreeMap<EventNumber, Vec<EventNumber>> = BTreeMap::new();
        let number = |at: usize| EventNumber(1000 - 3 * at as u64);
        for (at, edges) in edges.iter().enumerate() {
            let to: Vec<_> = if at == 0 {
                Vec::new()
            } else {
                edges.iter().map(|edge| number(edge.index(at))).collect()
            };
            graph.insert(number(at), &to, false).unwrap();
            witnesses.insert(number(at), to);
        }
        let walk = |roots: &[EventNumber]| -> BTreeSet<EventNumber> {
            let mut seen = BTreeSet::new();
            let mut todo: Vec<_> = roots.iter().flat_map(|root| witnesses[root].clone()).collect();
            while let Some(event) = todo.pop() {
                if seen.insert(event) {
                    todo.extend(&witnesses[&event]);
                }
            }
            seen
        };
        let sets: Vec<Vec<EventNumber>> = sets
            .iter()
            .map(|set| set.iter().map(|at| number(at.index(edges.len()))).collect())
            .collect();
        let found = |set: &room::graph::EventSet| graph.numbers_of(set).collect::<BTreeSet<_>>();

        let chains: Vec<_> = sets.iter().map(|set| walk(set)).collect();
        for (set, chain) in sets.iter().zip(&chains) {
            let answer = graph.chain(set.iter().copied()).unwrap();
            prop_assert_eq!(&found(&answer), chain);
            prop_assert_eq!(answer.len(), chain.len());
        }

        let common = chains.iter().skip(1).fold(chains[0].clone(), |common, chain| &common & chain);
        let differences = graph.difference(sets.iter().map(|set| set.iter().copied())).unwrap();
        for (difference, chain) in differences.iter().zip(&chains) {
            prop_assert_eq!(found(difference), chain - &common);
        }

        let ends: BTreeSet<EventNumber> = sets[0].iter().copied().collect();
        let subgraph = graph.conflicted_subgraph(sets[0].iter().copied()).unwrap();
        let between = &walk(&sets[0]) | &ends;
        let expected: BTreeSet<_> = between
            .into_iter()
            .filter(|event| ends.contains(event) || !(&walk(&[*event]) & &ends).is_empty())
            .collect();
        prop_assert_eq!(found(&subgraph), expected);
    }
}
