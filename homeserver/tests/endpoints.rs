//! Which endpoints of the specification are served: `spec/endpoints.md` says it, and this test writes it.
//!
//! The list of the specification is `spec/matrix-1.19-endpoints.tsv`, what we serve is what the router was built from. When the two
//! give another page than the one committed, the page is written anew and the test fails: look at the difference, commit it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// A line of the specification's list.
struct Endpoint<'a> {
    api: &'a str,
    group: &'a str,
    method: &'a str,
    path: &'a str,
    added_in: &'a str,
    is_deprecated: bool,
}

fn spec(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec").join(file)
}

fn parse(line: &str) -> Endpoint<'_> {
    // An operation documented twice has a space after its second path.
    let fields: Vec<&str> = line.split('\t').map(str::trim_end).collect();
    let [api, group, method, path, _, added_in, deprecated, _] = fields[..] else { panic!("not eight fields: {line}") };
    Endpoint { api, group, method, path, added_in, is_deprecated: !deprecated.is_empty() }
}

/// A path with its placeholders' names taken out: the specification and ruma call them differently.
fn shape(path: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() };
    path.trim_end_matches('/').split('/').map(part).collect::<Vec<_>>().join("/")
}

/// All source text of the services, in which the paths that we ask others by are found.
fn services_text(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            services_text(&path, text);
        } else {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// What each endpoint is to us: the file that serves it, or how we ask it.
struct Known {
    served: HashMap<(String, String), String>,
    services: String,
}

impl Known {
    fn new() -> Self {
        let endpoints = homeserver::routes::endpoints();
        let served = endpoints.served.iter().map(|(method, path, handler)| {
            let module = handler.trim_start_matches("homeserver::").split("::").collect::<Vec<_>>();
            ((method.clone(), shape(path)), module[..module.len() - 1].join("/"))
        });
        let mut services = String::new();
        services_text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("services/src"), &mut services);
        Self { served: served.collect(), services }
    }

    fn status(&self, endpoint: &Endpoint<'_>) -> Option<String> {
        match endpoint.api {
            // Served by application services and push gateways; we are the ones who ask.
            "application-service" | "push-gateway" => {
                let path = endpoint.path.split("/{").next().unwrap_or_default();
                let path = path.trim_start_matches("/_matrix/app/v1").trim_start_matches("/_matrix/push/v1");
                // Paths are put together with the version apart where there are several.
                let word = path.trim_start_matches("/thirdparty");
                let is_asked =
                    self.services.contains(path) || (path != word && self.services.contains("/thirdparty/{what}"));
                is_asked.then(|| "asked by us".to_owned())
            }
            _ => self.served.get(&(endpoint.method.to_owned(), shape(endpoint.path))).cloned(),
        }
    }
}

fn page(list: &str) -> String {
    let known = Known::new();
    let mut groups: BTreeMap<&str, Vec<(Endpoint<'_>, Option<String>)>> = BTreeMap::new();
    for line in list.lines().skip(1) {
        let endpoint = parse(line);
        let status = known.status(&endpoint);
        groups.entry(endpoint.api).or_default().push((endpoint, status));
    }
    let mut page = String::from(
        "# Endpoints of Matrix 1.19\n\nWritten by `homeserver/tests/endpoints.rs` from the specification's list and the router. \
         Do not edit.\n\n| API | served | not yet |\n|---|---|---|\n",
    );
    for (api, endpoints) in &groups {
        let served = endpoints.iter().filter(|(_, status)| status.is_some()).count();
        writeln!(page, "| {api} | {served} | {} |", endpoints.len() - served).unwrap();
    }
    let all: usize = groups.values().map(Vec::len).sum();
    let served = groups.values().flatten().filter(|(_, status)| status.is_some()).count();
    writeln!(page, "| all {all} | {served} | {} |", all - served).unwrap();
    for (api, endpoints) in groups {
        writeln!(page, "\n## {api}\n\n| endpoint | group | since | served by |\n|---|---|---|---|").unwrap();
        for (endpoint, status) in endpoints {
            let since = if endpoint.added_in.is_empty() { "1.0" } else { endpoint.added_in };
            let deprecated = if endpoint.is_deprecated { ", deprecated" } else { "" };
            let status = status.unwrap_or_else(|| "not yet".to_owned());
            let Endpoint { method, path, group, .. } = endpoint;
            writeln!(page, "| `{method} {path}` | {group} | {since}{deprecated} | {status} |").unwrap();
        }
    }
    page
}

#[test]
fn the_page_of_endpoints_says_what_the_router_serves() {
    let list = fs::read_to_string(spec("matrix-1.19-endpoints.tsv")).unwrap();

    let page = page(&list);

    assert_eq!(list.lines().count(), 213, "the specification's list has 212 endpoints");
    let file = spec("endpoints.md");
    if fs::read_to_string(&file).is_ok_and(|committed| committed == page) {
        return;
    }
    fs::write(&file, page).unwrap();
    panic!("spec/endpoints.md was not what the router serves; it is now: look at the difference and commit it");
}

#[test]
fn placeholders_of_any_name_are_the_same() {
    assert_eq!(
        shape("/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}"),
        "/_matrix/client/v3/rooms/{}/send/{}/{}"
    );
    assert_eq!(shape("/_matrix/client/v3/pushrules/"), "/_matrix/client/v3/pushrules");
}
