//! Rooms of other servers, found before anybody is in them: lists, spaces, summaries.

use serde_json::{Value, json};

use crate::scene::Scene;

impl Scene {
    async fn alice_makes(&self, room: Value) -> String {
        let made = self.here.asked("POST", "v3/createRoom", Some(&self.alice), &room).await;
        made["room_id"].as_str().unwrap().to_owned()
    }

    async fn bob_asks(&self, method: &str, path: &str, body: Value) -> Value {
        self.there.asked(method, path, Some(&self.bob), &body).await
    }
}

fn names(rooms: &Value) -> Vec<&str> {
    rooms.as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap_or_default()).collect()
}

#[tokio::test]
async fn a_list_of_public_rooms_is_read_and_searched_across_servers() {
    let scene = Scene::new().await;
    for name in ["Chess", "Go", "Bridge"] {
        scene.alice_makes(json!({ "preset": "public_chat", "visibility": "public", "name": name })).await;
    }
    scene.alice_makes(json!({ "preset": "private_chat", "name": "Secret Go" })).await;
    let list = format!("v3/publicRooms?server={}", scene.here.name);

    let first = scene.bob_asks("GET", &format!("{list}&limit=2"), json!({})).await;
    let since = first["next_batch"].as_str().unwrap();
    let rest = scene.bob_asks("GET", &format!("{list}&since={since}"), json!({})).await;
    let found = scene.bob_asks("POST", &list, json!({ "filter": { "generic_search_term": "go" } })).await;

    let mut all = [names(&first["chunk"]), names(&rest["chunk"])].concat();
    all.sort_unstable();
    assert_eq!(all, ["Bridge", "Chess", "Go"]);
    assert_eq!(names(&found["chunk"]), ["Go"]);
}

#[tokio::test]
async fn the_tree_below_a_space_of_another_server_shows_what_one_could_join() {
    let scene = Scene::new().await;
    let space = scene
        .alice_makes(json!({ "preset": "public_chat", "name": "Club", "creation_content": { "type": "m.space" } }))
        .await;
    let open = scene.alice_makes(json!({ "preset": "public_chat", "name": "Lounge" })).await;
    let closed = scene.alice_makes(json!({ "preset": "private_chat", "name": "Board" })).await;
    for child in [&open, &closed] {
        let path = format!("v3/rooms/{space}/state/m.space.child/{child}");
        scene.here.asked("PUT", &path, Some(&scene.alice), &json!({ "via": [scene.here.name] })).await;
    }
    let alias = format!("#club:{}", scene.here.name);
    let path = format!("v3/directory/room/{}", alias.replace('#', "%23"));
    scene.here.asked("PUT", &path, Some(&scene.alice), &json!({ "room_id": space })).await;

    let path = format!("v1/room_summary/{}", alias.replace('#', "%23"));
    let summary = scene.bob_asks("GET", &path, json!({})).await;
    scene.bob_asks("POST", &format!("v3/join/{}", alias.replace('#', "%23")), json!({})).await;
    let tree = scene.bob_asks("GET", &format!("v1/rooms/{space}/hierarchy"), json!({})).await;

    assert_eq!(summary["name"], "Club");
    assert_eq!(summary["membership"], "leave");
    assert_eq!(names(&tree["rooms"]), ["Club", "Lounge"]);
}
