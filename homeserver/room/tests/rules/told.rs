//! Batches, heads and relations: what comes after what, and what belongs to what.

use std::sync::Arc;

use proptest::prelude::*;
use room::{
    Pdu,
    event::{PREV_EVENTS_MAX, kind},
    graph::{
        gaps,
        heads::{self, HEADS_MAX, Head},
        order,
    },
    relation::{Relation, is_valid_replacement, relates_to},
    visibility::{At, changes_what_is_seen, server_may_see, user_may_see},
};
use ruma::{
    OwnedEventId,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
};
use serde_json::{Value, json, value::to_raw_value};

use crate::world::{ALICE, BOB, World};

fn head(event: u64, depth: u64, own: bool) -> Head<u64> {
    Head { event, depth, own }
}

#[test]
fn a_new_event_takes_the_place_of_the_heads_it_follows() {
    let heads = [head(1, 5, false), head(2, 6, false), head(3, 4, false)];
    let after = heads::after(&heads, head(9, 7, false), &[1, 2, 77], false);
    assert_eq!(after, [head(9, 7, false), head(3, 4, false)]);
}

#[test]
fn an_event_that_was_followed_before_it_came_is_no_head_but_covers_heads() {
    let heads = [head(1, 5, false), head(2, 9, false)];
    assert_eq!(heads::after(&heads, head(9, 6, false), &[1], true), [head(2, 9, false)]);
    // Unless that left the room without any.
    assert_eq!(heads::after(&heads[..1], head(9, 6, false), &[1], true), [head(9, 6, false)]);
}

#[test]
fn a_room_keeps_at_most_sixty_heads_our_own_first_then_the_deepest() {
    let mut many: Vec<_> = (0..100).map(|at| head(at, at, false)).collect();
    many.push(head(500, 0, true));

    let kept = heads::after(&many, head(900, 3, false), &[], false);

    assert_eq!(kept.len(), HEADS_MAX);
    assert_eq!(kept[0], head(500, 0, true));
    assert_eq!(kept[1], head(99, 99, false));
    assert!(!kept.contains(&head(0, 0, false)));
}

#[test]
fn our_next_event_follows_no_more_heads_than_an_event_may_and_is_deeper_than_all() {
    let many: Vec<_> = (0..40).map(|at| head(at, at, false)).collect();
    let (prev, depth) = heads::next(&many, u64::MAX);
    assert_eq!((prev.len(), depth), (PREV_EVENTS_MAX, 40));
    assert_eq!(heads::next(&[head(1, 10, false)], 10), (vec![1], 10));
    assert_eq!(heads::next::<u64>(&[], 10), (vec![], 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_batch_is_ordered_so_that_nothing_comes_before_what_it_follows(
        shuffled in Just((0..7_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (mut world, join) = World::new("12");
        let mut ids = vec![join.clone()];
        for at in 0..7_usize {
            let on = ids[at / 2].clone();
            ids.push(world.state(&[&on], ALICE, kind::TOPIC, "", json!({"topic": at})));
        }
        let batch: Vec<Arc<Pdu>> = shuffled.iter().map(|at| world.get(&ids[at + 1])).collect();

        let ordered = order(&batch);

        let place = |id: &OwnedEventId| {
            ordered.iter().position(|&at| batch[at].event_id == *id)
        };
        prop_assert_eq!(ordered.len(), batch.len());
        for event in &batch {
            for prev in &event.prev_events {
                prop_assert!(place(prev) < place(&event.event_id));
            }
        }
        // The order does not depend on the order of arrival.
        let names: Vec<_> = ordered.iter().map(|&at| batch[at].event_id.clone()).collect();
        let sorted: Vec<Arc<Pdu>> = (0..7).map(|at| world.get(&ids[at + 1])).collect();
        let expected: Vec<_> = order(&sorted).iter().map(|&at| sorted[at].event_id.clone()).collect();
        prop_assert_eq!(names, expected);
    }
}

#[test]
fn an_event_comes_after_what_vouches_for_it_even_if_it_claims_to_be_less_deep() {
    let (mut world, join) = World::new("11");
    let mut witness = world.make(&[&join], ALICE, kind::TOPIC, Some(""), json!({}));
    witness.depth = 50;
    let mut event = world.make(&[&join], ALICE, kind::MESSAGE, None, json!({}));
    event.auth_events.push(witness.event_id.clone());
    assert_eq!(order(&[event.clone(), witness.clone()]), [1, 0]);
    // Hashes make a ring impossible; if there were one, nothing would be lost.
    witness.prev_events = vec![event.event_id.clone()];
    assert_eq!(order(&[event, witness]), [0, 1]);
}

#[test]
fn the_gaps_of_a_batch_are_what_neither_it_nor_we_have() {
    let (mut world, join) = World::new("11");
    let a = world.state(&[&join], ALICE, kind::TOPIC, "", json!({"topic": "a"}));
    let b = world.state(&[&a], ALICE, kind::TOPIC, "", json!({"topic": "b"}));
    let c = world.state(&[&b], ALICE, kind::TOPIC, "", json!({"topic": "c"}));
    let batch = [world.get(&a), world.get(&c)];

    let all_known = gaps(&batch, |id| *id != *b);
    assert!(all_known.prev.iter().eq([&b]));
    assert!(all_known.auth.is_empty());

    let nothing_known = gaps(&batch, |_| false);
    assert!(nothing_known.prev.contains(&join) && nothing_known.auth.contains(&join));
    assert!(!nothing_known.prev.contains(&a));
}

fn relation_of(content: &Value) -> Option<room::relation::RelatesTo> {
    relates_to(&to_raw_value(content).unwrap())
}

#[test]
fn reactions_threads_replies_and_edits_are_told_apart() {
    let said = |relates_to: Value| relation_of(&json!({"m.relates_to": relates_to})).unwrap();
    let parent = OwnedEventId::try_from("$parent").unwrap();

    let reaction = said(json!({"rel_type": "m.annotation", "event_id": "$parent", "key": "👍"}));
    let expected =
        Relation { rel_type: "m.annotation".to_owned(), parent: parent.clone(), key: Some("👍".to_owned()) };
    assert_eq!(reaction.relation, Some(expected));
    assert_eq!((reaction.thread_root(), reaction.replaces()), (None, None));

    let threaded = said(json!({
        "rel_type": "m.thread", "event_id": "$parent", "is_falling_back": true,
        "m.in_reply_to": {"event_id": "$newest"},
    }));
    assert_eq!(threaded.thread_root(), Some(&parent));
    assert_eq!(threaded.replied_to(), None);

    let reply = said(json!({"m.in_reply_to": {"event_id": "$parent"}, "is_falling_back": true}));
    assert_eq!((reply.relation.as_ref(), reply.replied_to()), (None, Some(&parent)));

    let edit = said(json!({"rel_type": "m.replace", "event_id": "$parent"}));
    assert_eq!(edit.replaces(), Some(&parent));
}

#[test]
fn what_is_no_relation_is_none() {
    for odd in [
        json!({}),
        json!({"body": "m.relates_to"}),
        json!({"m.relates_to": null}),
        json!({"m.relates_to": "m.thread"}),
        json!({"m.relates_to": {"rel_type": "m.thread"}}),
        json!({"m.relates_to": {"rel_type": 1, "event_id": "$a"}}),
        json!({"m.relates_to": {"rel_type": "m.thread", "event_id": "a"}}),
        json!({"m.relates_to": {"m.in_reply_to": "$a"}}),
        json!({"m.relates_to": {"m.in_reply_to": {"event_id": 1}}}),
    ] {
        assert_eq!(relation_of(&odd), None, "{odd}");
    }
}

#[test]
fn only_the_author_may_edit_and_only_an_original_message() {
    let (mut world, join) = World::new("12");
    let original = world.make(&[&join], ALICE, kind::MESSAGE, None, json!({"body": "a"}));
    let replacing = |id: &OwnedEventId| {
        json!({"body": "* b", "m.new_content": {"body": "b"},
               "m.relates_to": {"rel_type": "m.replace", "event_id": id}})
    };
    let to = replacing(&original.event_id);
    let mut without_content = to.clone();
    without_content.as_object_mut().unwrap().remove("m.new_content");
    let mut make = |sender: &str, kind: &str, key: Option<&str>, content: &Value| {
        world.make(&[&join], sender, kind, key, content.clone())
    };
    let edit = make(ALICE, kind::MESSAGE, None, &to);
    let edit_of_edit = make(ALICE, kind::MESSAGE, None, &replacing(&edit.event_id));

    assert!(is_valid_replacement(&edit, &original));
    assert!(!is_valid_replacement(&edit, &edit_of_edit));
    assert!(!is_valid_replacement(&edit_of_edit, &edit));
    assert!(!is_valid_replacement(&make(BOB, kind::MESSAGE, None, &to), &original));
    assert!(!is_valid_replacement(&make(ALICE, "m.sticker", None, &to), &original));
    assert!(!is_valid_replacement(&make(ALICE, kind::MESSAGE, Some(""), &to), &original));
    assert!(!is_valid_replacement(&make(ALICE, kind::MESSAGE, None, &without_content), &original));

    let hidden = make(ALICE, kind::ENCRYPTED, None, &json!({"ciphertext": "x"}));
    let mut hidden_edit = replacing(&hidden.event_id);
    hidden_edit.as_object_mut().unwrap().remove("m.new_content");
    assert!(is_valid_replacement(&make(ALICE, kind::ENCRYPTED, None, &hidden_edit), &hidden));
}

#[test]
fn who_sees_an_event_follows_from_visibility_and_membership_then() {
    use HistoryVisibility::{Invited, Joined, Shared, WorldReadable};
    use MembershipState::{Ban, Invite, Join, Knock, Leave};
    // (visibility, membership, seen, seen if joined later)
    let cases = [
        (WorldReadable, Leave, true, true),
        (WorldReadable, Ban, true, true),
        (Shared, Join, true, true),
        (Shared, Leave, false, true),
        (Shared, Invite, false, true),
        (Shared, Knock, false, true),
        (Invited, Join, true, true),
        (Invited, Invite, true, true),
        (Invited, Leave, false, false),
        (Joined, Join, true, true),
        (Joined, Invite, false, false),
        (Joined, Leave, false, false),
        (HistoryVisibility::from("org.example.odd"), Leave, false, true),
    ];
    for (visibility, membership, seen, seen_later) in cases {
        let at = (At::unchanged(visibility.clone()), At::unchanged(membership.clone()));
        let case = format!("{visibility:?}, {membership:?}");
        assert_eq!(user_may_see(&at.0, &at.1, false), seen, "{case}");
        assert_eq!(user_may_see(&at.0, &at.1, true), seen_later, "{case}, joined later");
    }
}

#[test]
fn the_event_that_changes_visibility_or_ones_own_membership_counts_both_before_and_after() {
    let hidden = At::unchanged(HistoryVisibility::Joined);
    let out = At::unchanged(MembershipState::Leave);
    let leaving = At { before: MembershipState::Join, after: MembershipState::Leave };
    assert!(user_may_see(&hidden, &leaving, false));
    let closing = At { before: HistoryVisibility::WorldReadable, after: HistoryVisibility::Joined };
    assert!(user_may_see(&closing, &out, false));
    assert!(!user_may_see(&hidden, &out, false));

    let (mut world, join) = World::new("12");
    let mine = world.make(&[&join], ALICE, kind::MEMBER, Some(ALICE), json!({"membership": "join"}));
    assert!(changes_what_is_seen(&mine, ALICE) && !changes_what_is_seen(&mine, BOB));
    let topic = world.make(&[&join], ALICE, kind::TOPIC, Some(""), json!({}));
    assert!(!changes_what_is_seen(&topic, ALICE));
}

#[test]
fn another_server_sees_what_one_of_its_users_was_there_to_see() {
    use HistoryVisibility::{Invited, Joined, Shared};
    let sees = |visibility, memberships: &[MembershipState]| server_may_see(&At::unchanged(visibility), memberships);
    let (join, invite, leave) = (MembershipState::Join, MembershipState::Invite, MembershipState::Leave);
    assert!(sees(Shared, &[]));
    assert!(!sees(Joined, &[]));
    assert!(!sees(Joined, &[invite.clone(), leave.clone()]));
    assert!(sees(Joined, &[leave.clone(), join]));
    assert!(sees(Invited, &[invite]));
    assert!(!sees(Invited, &[leave]));
}
