//! The invariants of ARCHITECTURE.md that a program can see. When one of these fails, the words say what to move where.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Lines of a source file, its own tests apart.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 90;
/// The list of all services, which grows with them and has nothing to read between its lines.
const THE_LIST: &str = "homeserver/services/src/lib.rs";
/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 7] = ["utils", "util", "common", "helpers", "manager", "types", "misc"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The Rust files under a folder of the repository: (path from its root, text).
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().display().to_string();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// Every source folder of what we ship.
fn shipped() -> Vec<(String, String)> {
    let folders = [
        "homeserver/src",
        "homeserver/services/src",
        "homeserver/storage/src",
        "homeserver/room/src",
        "appservice-voice/src",
        "spec/protocol/src",
        "voicechat/src",
    ];
    folders.into_iter().flat_map(sources).collect()
}

/// A file without the tests at its end.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

/// The crates a manifest depends on when it is built, not when it is tested.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = read(manifest);
    let mut names = BTreeSet::new();
    let mut is_inside = false;
    for line in text.lines() {
        if line.starts_with('[') {
            is_inside = line.ends_with("dependencies]") && !line.contains("dev-");
        } else if let (true, Some(name)) =
            (is_inside, line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty()))
        {
            names.insert(name.to_owned());
        }
    }
    names
}

#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_rules_of_rooms_are_pure() {
    let allowed = BTreeSet::from(["ruma", "serde", "serde_json", "thiserror"].map(str::to_owned));
    let more: Vec<_> = dependencies("homeserver/room/Cargo.toml").difference(&allowed).cloned().collect();
    assert!(more.is_empty(), "room depends on {more:?}: it has no IO, no clock and no randomness");
    let forbidden = ["std::fs", "std::net", "std::time::Instant", "SystemTime", "std::env", "std::thread", "async fn"];
    let sources = sources("homeserver/room/src");
    let faults = sources.iter().flat_map(|(file, text)| {
        let found = forbidden.iter().filter(|word| text.contains(**word));
        found.map(move |word| format!("{file} says {word}: give it what it needs as a value"))
    });
    none(&faults.collect::<Vec<_>>());
}

#[test]
fn only_storage_speaks_sql_and_routes_never_see_it() {
    for manifest in ["homeserver", "homeserver/services", "homeserver/room", "appservice-voice", "voicechat"] {
        let dependencies = dependencies(&format!("{manifest}/Cargo.toml"));
        assert!(
            !dependencies.contains("sqlx"),
            "{manifest} depends on sqlx: statements belong into homeserver/storage"
        );
    }
    for manifest in ["homeserver", "voicechat"] {
        let dependencies = dependencies(&format!("{manifest}/Cargo.toml"));
        assert!(!dependencies.contains("storage"), "{manifest} depends on storage: routes ask services");
    }
}

#[test]
fn services_do_not_know_http_servers_nor_the_client_servers_types() {
    let dependencies = dependencies("homeserver/services/Cargo.toml");
    for name in ["axum", "axum-server", "tower", "tower-http", "hyper"] {
        assert!(!dependencies.contains(name), "services depends on {name}: HTTP belongs into routes");
    }
    assert!(!read("homeserver/services/Cargo.toml").contains("client-api"), "services must not have ruma's client API");
    let sources = sources("homeserver/services/src");
    let faults = sources.iter().filter(|(_, text)| text.contains("ruma::api::client"));
    none(&faults.map(|(file, _)| format!("{file} uses ruma::api::client: take plain values")).collect::<Vec<_>>());
}

#[test]
fn the_homeserver_does_not_know_voice() {
    for manifest in ["homeserver", "homeserver/services", "homeserver/storage", "homeserver/room"] {
        let dependencies = dependencies(&format!("{manifest}/Cargo.toml"));
        let knows = dependencies.iter().any(|name| name.contains("voice"));
        assert!(!knows, "{manifest} depends on voice: it is an application service and speaks HTTP");
    }
    let voice = dependencies("appservice-voice/Cargo.toml");
    assert!(!["homeserver", "services", "storage", "room"].iter().any(|name| voice.contains(*name)));
}

/// The service modules a text names through `crate::`, their shorthand names at the crate's root resolved.
fn named(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = text;
    while let Some(at) = rest.find("crate::") {
        let is_path = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        rest = &rest[at + "crate::".len()..];
        if !is_path {
            continue;
        }
        if let Some(list) = rest.strip_prefix('{') {
            for item in top_level(list) {
                names.insert(first_word(item));
            }
        } else {
            names.insert(first_word(rest));
        }
    }
    let resolved = names.into_iter().map(|name| match &*name {
        "Context" => "context".to_owned(),
        "Error" | "Result" => "error".to_owned(),
        _ => name,
    });
    resolved.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The items of a braced list, those nested deeper left whole.
fn top_level(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut items) = (0_usize, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[from..at]);
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    items
}

/// Comments name other modules freely.
fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn services_form_no_circle() {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in sources("homeserver/services/src") {
        let module = file.trim_start_matches("homeserver/services/src/").split(['/', '.']).next().unwrap().to_owned();
        if module != "lib" {
            let mut named = named(&without_comments(without_tests(&text)));
            named.remove(&module);
            arrows.entry(module).or_default().extend(named);
        }
    }
    assert!(arrows.len() > 10, "the services were not found");

    // What points to nothing and what nothing points to is in no circle; without it others become so too.
    loop {
        let pointed_at: BTreeSet<String> = arrows.values().flatten().cloned().collect();
        let is_loose = |from: &String, to: &BTreeSet<String>| to.is_empty() || !pointed_at.contains(from);
        let loose: BTreeSet<String> =
            arrows.iter().filter(|(from, to)| is_loose(from, to)).map(|(from, _)| from.clone()).collect();
        let unknown: BTreeSet<String> = pointed_at.into_iter().filter(|to| !arrows.contains_key(to)).collect();
        if loose.is_empty() && unknown.is_empty() {
            break;
        }
        arrows.retain(|from, _| !loose.contains(from));
        arrows.values_mut().for_each(|to| to.retain(|to| !loose.contains(to) && !unknown.contains(to)));
    }
    let arrow = |(from, to): (&String, &BTreeSet<String>)| {
        format!("{from} → {}", to.iter().cloned().collect::<Vec<_>>().join(", "))
    };
    let circle: Vec<String> = arrows.iter().map(arrow).collect();
    assert!(
        circle.is_empty(),
        "services in a circle:\n{}\nlet the upper one hand down a trait or a value",
        circle.join("\n")
    );
}

/// `createRoom` → `create_room`, `.well-known` → `well_known`.
fn snake(segment: &str) -> String {
    if segment == "3pid" {
        // No module's name begins with a digit.
        return "threepid".to_owned();
    }
    let mut name = String::new();
    for c in segment.trim_start_matches('.').chars() {
        match c {
            'A'..='Z' => {
                name.push('_');
                name.push(c.to_ascii_lowercase());
            }
            '-' | '.' => name.push('_'),
            _ => name.push(c),
        }
    }
    name
}

/// The words of a path that decide its file; `None` for unstable paths, which share the file of their stable ones.
fn words(path: &str) -> Option<Vec<String>> {
    let is_version = |s: &str| s.len() > 1 && s.starts_with(['v', 'r']) && s[1..].chars().all(|c| c.is_ascii_digit());
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty() && !s.starts_with('{')).collect();
    if segments.contains(&"unstable") {
        return None;
    }
    Some(segments.into_iter().filter(|s| *s != "_matrix" && *s != "matrix" && !is_version(s)).map(snake).collect())
}

#[test]
fn an_endpoint_stands_in_the_file_its_path_names() {
    let served = homeserver::routes::endpoints().served;
    assert!(served.len() > 50, "the endpoints were not found");
    let mut faults = BTreeSet::new();
    for (method, path, handler) in &served {
        let Some(words) = words(path) else { continue };
        let module = handler.trim_start_matches("homeserver::").trim_start_matches("routes::");
        let (module, _) = module.rsplit_once("::").unwrap_or((module, ""));
        let module: Vec<&str> = module.split("::").collect();
        // Under rooms the second word decides; elsewhere the first; a long file may be divided further, word by word.
        let least = match &words[..] {
            [api, rooms, _, ..] if api == "client" && rooms == "rooms" => 3,
            [api, _, ..] if api == "client" || api == "federation" => 2,
            _ => 1,
        };
        let least = least.min(words.len());
        let stands = module.len() >= least && words.iter().zip(&module).all(|(word, part)| word == part);
        if !stands {
            faults.insert(format!(
                "{method} {path} stands in {}: move it to {}",
                module.join("/"),
                words[..least].join("/")
            ));
        }
    }
    none(&faults.into_iter().collect::<Vec<_>>());
}

#[test]
fn files_are_short_say_what_they_are_and_have_names_that_mean_something() {
    let mut faults = Vec::new();
    for (file, text) in shipped() {
        let lines = without_tests(&text).lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{file} has {lines} lines: which noun has grown two meanings?"));
        }
        if !text.starts_with("//!") {
            faults.push(format!("{file} does not begin by saying what it is (`//!`)"));
        }
        let stem = Path::new(&file).file_stem().unwrap().to_str().unwrap();
        if EMPTY_NAMES.contains(&stem) || stem == "mod" {
            faults.push(format!("{file}: name it after what is inside"));
        }
    }
    none(&faults);
}

#[test]
fn functions_are_short() {
    let mut faults = Vec::new();
    for (file, text) in shipped() {
        let lines: Vec<&str> = without_tests(&text).lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let is_function = code.starts_with("fn ")
                || ["pub ", "pub(", "async fn", "const fn"].iter().any(|start| code.starts_with(start))
                    && code.contains("fn ");
            if !is_function || code.ends_with(';') {
                continue;
            }
            let indent = &line[..line.len() - code.len()];
            let end = lines[at..].iter().position(|end| *end == format!("{indent}}}")).unwrap_or(0);
            if end + 1 > FUNCTION_LINES_MAX && file != THE_LIST {
                let name = code.split("fn ").nth(1).map(first_word).unwrap_or_default();
                faults.push(format!("{file}:{} {name} has {} lines", at + 1, end + 1));
            }
        }
    }
    none(&faults);
}

#[test]
fn queues_caches_and_waits_have_named_limits() {
    const LIMITED: [&str; 8] = [
        "mpsc::channel(",
        "broadcast::channel(",
        "Semaphore::new(",
        "Cache::new(",
        "sleep(",
        "interval(",
        "timeout(",
        "to_bytes(",
    ];
    let mut faults = Vec::new();
    for (file, text) in shipped() {
        for (at, line) in
            without_tests(&text).lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            if line.contains("unbounded_channel") {
                faults.push(format!("{file}:{}: a queue without a limit", at + 1));
            }
            for call in LIMITED {
                let Some((_, arguments)) = line.split_once(call) else { continue };
                let is_bare = |argument: &str| {
                    let argument = argument.trim();
                    argument.starts_with(|c: char| c.is_ascii_digit()) && argument != "0" && argument != "1"
                        || argument.starts_with("Duration::from")
                };
                if arguments.split(',').any(is_bare) {
                    faults.push(format!("{file}:{}: give the number in `{call}…` a name with its unit", at + 1));
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn the_parser_of_use_lines_sees_nested_lists() {
    let text = "use crate::{\n    Context, Error,\n    accounts::{Accounts, tokens::{A, B}},\n    notify::Change,\n};\nfn f() { crate::limits::g() }";

    let named = named(text);

    assert_eq!(named, BTreeSet::from(["accounts", "context", "error", "limits", "notify"].map(str::to_owned)));
}
