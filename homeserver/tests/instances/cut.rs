//! An instance that is cut off from Valkey, or a Valkey that restarts: nothing wrong is believed meanwhile, and it heals by itself.

use ruma::server_name;
use serde_json::json;
use services::{
    error::Error,
    limits::{Action, Rate, Subject},
};

use crate::{
    fixture::{PASSWORD, TestServer, settings},
    hop::Hop,
    moving::{at, room_of, say, sync},
    pair::{Place, becomes, in_time, until},
};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

#[tokio::test]
async fn a_token_that_ends_while_an_instance_is_cut_off_is_not_good_there() {
    let place = Place::fresh().await;
    let hop = Hop::to(&place.valkey_url).await;
    let one = place.instance().await;
    let two = place.instance_with(&hop.url, settings(), |bus| Box::new(bus)).await;
    let alice = one.user("alice").await;
    let alice_there = at(&two, &alice);
    until(&two, "it hears itself", async || two.context.notify.hears_others()).await;
    alice_there.get(WHOAMI).await.ok();

    hop.cut();
    alice.post("/_matrix/client/v3/logout", json!({})).await.ok();

    // Cut off or not: sooner or later the instance knows that it is deaf, or has heard that it missed something.
    becomes("the end of the token", async || alice_there.get(WHOAMI).await.status() != 200).await;
    hop.mend();
    until(&two, "it hears itself again", async || two.context.notify.hears_others()).await;
    assert_eq!(alice_there.get(WHOAMI).await.refusal(), (401, "M_UNKNOWN_TOKEN".to_owned()));
}

#[tokio::test]
async fn another_server_that_answers_again_while_an_instance_is_cut_off_is_asked_by_it_again() {
    let place = Place::fresh().await;
    let hop = Hop::to(&place.valkey_url).await;
    let one = place.instance().await;
    let two = place.instance_with(&hop.url, settings(), |bus| Box::new(bus)).await;
    let elsewhere = server_name!("elsewhere.example.org");
    let health = |instance: &TestServer| instance.services.federation.client().health().clone();
    let knows = async || health(&two).of(elsewhere).is_some();
    until(&two, "it hears the other", async || two.context.notify.hears_others()).await;
    health(&one).failed(elsewhere).await;
    // It is read anew after it was heard of, so no bell rings when it is known.
    becomes("word of the failure", knows).await;

    hop.cut();
    health(&one).succeeded(elsewhere).await;
    becomes("silence", async || !two.context.notify.hears_others()).await;
    hop.mend();

    becomes("the end of the failure", async || !knows().await).await;
}

#[tokio::test]
async fn syncs_are_woken_while_valkey_is_away_and_after_it_is_back() {
    let place = Place::fresh().await;
    let hop = Hop::to(&place.valkey_url).await;
    let one = place.instance_with(&hop.url, settings(), |bus| Box::new(bus)).await;
    let two = place.instance_with(&hop.url, settings(), |bus| Box::new(bus)).await;
    let [alice, bob] = one.users(["alice", "bob"]).await;
    let room_id = room_of(&[&alice, &bob]).await;
    let bob_there = at(&two, &bob);
    let mut since = bob.sync_token().await;
    for (n, stands) in [true, false, true, false, true].into_iter().enumerate() {
        if stands {
            hop.mend()
        } else {
            hop.cut()
        }
        let waiting = {
            let (bob, since) = (bob_there.clone(), since.clone());
            tokio::spawn(async move { sync(&bob, &since, 90_000).await })
        };
        let event_id = say(&alice, &room_id, &format!("message {n}")).await;
        let (answer, next) = in_time("the sync's answer", waiting).await.unwrap();
        let events = answer["rooms"]["join"][&room_id]["timeline"]["events"].as_array().cloned().unwrap_or_default();
        let shown: Vec<&str> = events.iter().map(|event| event["event_id"].as_str().unwrap()).collect();
        assert_eq!(shown, [event_id], "round {n}");
        since = next;
    }
    until(&two, "it hears itself again", async || two.context.notify.hears_others()).await;
}

#[tokio::test]
async fn rates_are_counted_together_and_again_when_valkey_is_back() {
    let place = Place::fresh().await;
    let hop = Hop::to(&place.valkey_url).await;
    let limited = || {
        let mut settings = settings();
        settings.limits.is_off = false;
        settings.limits.login = Rate::new(3, 1);
        settings.limits.message = Rate::new(4, 1);
        settings
    };
    let one = place.instance_with(&hop.url, limited(), |bus| Box::new(bus)).await;
    let two = place.instance_with(&hop.url, limited(), |bus| Box::new(bus)).await;
    let alice = one.user("alice").await;
    let login = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
    let user = Subject::User(1);

    for instance in [&one, &two, &one, &two] {
        instance.services.limits.take(Action::Message, &user).await.unwrap();
    }
    for instance in [&one, &two] {
        let refused = instance.services.limits.take(Action::Message, &user).await.unwrap_err();
        assert!(matches!(refused, Error::Limited { .. }), "{refused}");
    }

    hop.cut();
    // What only annoys passes, what guards accounts waits.
    for _ in 0..10 {
        one.services.limits.take(Action::Message, &user).await.unwrap();
    }
    assert_eq!(alice.post("/_matrix/client/v3/login", login.clone()).await.status(), 429);

    hop.mend();
    in_time("a login", async {
        while alice.post("/_matrix/client/v3/login", login.clone()).await.status() != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    in_time("a refusal", async {
        while two.services.limits.take(Action::Message, &user).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
