//! The configuration: a file, the environment and flags, and what is said of their faults.

use homeserver::config::{
    Config,
    sections::RegistrationMode,
    value::{Listen, Size},
};
use proptest::prelude::*;

fn none() -> Vec<(String, String)> {
    Vec::new()
}

fn pair(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), value.to_owned())]
}

fn faults(text: &str) -> Vec<String> {
    Config::load(text, none(), none()).unwrap_err().0
}

/// The file people copy: a change of it is reviewed as a change of `voicechat.example.toml`.
#[test]
fn the_example_shows_every_key_with_its_default() {
    insta::assert_snapshot!("example", Config::example());
}

/// The example with every key in use.
fn uncommented() -> String {
    let is_key = |line: &str| line.starts_with('#') && !line.starts_with("# ");
    Config::example()
        .lines()
        // Keys that have no default show a sample; those of files that must exist would be read.
        .filter(|line| !line.contains("VOICECHAT__") && !line.contains("_file"))
        .map(|line| if is_key(line) { format!("{}\n", &line[1..]) } else { format!("{line}\n") })
        .collect()
}

proptest! {
    #[test]
    fn no_damage_to_a_file_makes_the_reader_panic_and_each_fault_is_a_line(
        damage in prop::collection::vec((any::<prop::sample::Index>(), "[-=\"'\\[\\]{}.,\\\\# \n\t0-9a-z_\u{0}é]{0,4}"), 1..6),
        key in "[A-Z_]{0,12}__[A-Z_]{0,12}", value in ".{0,12}",
    ) {
        let mut text = uncommented();
        for (at, with) in damage {
            let (at, gone) = text.char_indices().nth(at.index(text.chars().count())).unwrap();
            text.replace_range(at..at + gone.len_utf8(), &with);
        }
        let environment = pair(&format!("VOICECHAT__{key}"), &value);
        if let Err(faults) = Config::load(&text, environment, none()) {
            prop_assert!(!faults.0.is_empty());
            prop_assert!(faults.0.iter().all(|fault| !fault.is_empty() && !fault.contains('\n')), "{:?}", faults.0);
        }
    }
}

#[test]
fn the_example_with_every_key_uncommented_is_understood() {
    let config = Config::load(&uncommented(), none(), none()).unwrap();

    assert_eq!(config.limits, Config::default().limits);
    assert_eq!(config.accounts, Config::default().accounts);
    assert!(config.server.public_url.is_some());
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let config = Config::load("", none(), none()).unwrap();

    assert_eq!(config, Config::default());
    assert_eq!(config.listen.client.to_string(), "127.0.0.1:8008");
    assert_eq!(config.server.name, "localhost:8448");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "[server]\nname = \"file.org\"\ndata_dir = \"/file\"\n[registration]\nmode = \"token\"";
    let mut environment = pair("VOICECHAT__SERVER__NAME", "environment.org");
    environment.extend(pair("VOICECHAT__SERVER__DATA_DIR", "/environment"));
    environment.extend(pair("PATH", "/bin"));
    let flags = pair("server.name", "flag.org");

    let config = Config::load(file, environment, flags).unwrap();

    assert_eq!(config.server.name, "flag.org");
    assert_eq!(config.server.data_dir.to_str(), Some("/environment"));
    assert_eq!(config.registration.mode, RegistrationMode::Token);
}

#[test]
fn an_environment_variable_may_hold_any_type() {
    let mut environment = pair("VOICECHAT__LISTEN__FEDERATION", "off");
    environment.extend(pair("VOICECHAT__DATABASE__DURABLE", "false"));
    environment.extend(pair("VOICECHAT__LIMITS__LOGIN_BURST", "7"));
    environment.extend(pair("VOICECHAT__MEDIA__UPLOAD_MAX", "1 GiB"));
    environment.extend(pair("VOICECHAT__VOICE__UDP_ADVERTISED", "192.0.2.1, 2001:db8::1"));

    let config = Config::load("", environment, none()).unwrap();

    assert_eq!(config.listen.federation, Listen::Off);
    assert!(!config.database.durable);
    assert_eq!(config.limits.login_burst, 7);
    assert_eq!(config.media.upload_max, Size(1 << 30));
    assert_eq!(config.voice.udp_advertised.len(), 2);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name() {
    let found = faults("[server]\nnmae = \"example.org\"\n[registraton]\nmode = \"open\"\n[log]\nzzz = 1");

    assert_eq!(
        found,
        [
            "log.zzz: no such key",
            "registraton: no such section; did you mean registration?",
            "server.nmae: no such key; did you mean name?",
        ]
        .map(str::to_owned)
    );
}

#[test]
fn every_fault_is_told_at_once() {
    let found = faults(
        "[server]\nname = \"not a name\"\npublic_url = \"example.org\"\n\
         [listen]\nclient = \"8008\"\ntls_key = \"/key.pem\"\ntrusted_proxies = [\"10.0.0.0/99\"]\n\
         [accounts]\naccess_token_lifetime = 15\n[registration]\nmode = \"opne\"\n[database]\nurl = \"mysql://x\"",
    );

    for start in [
        "server.name: expected",
        "server.public_url: expected",
        "listen.client: expected an address and port",
        "listen.tls_certificate and listen.tls_key: set both",
        "listen.trusted_proxies: \"10.0.0.0/99\"",
        "accounts.access_token_lifetime: expected a time such as",
        "registration.mode: expected one of \"closed\" \"token\" \"open\"",
        "database.url: expected",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(start)), "{start} is not in {found:#?}");
    }
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn a_file_that_is_not_toml_is_one_line_that_names_the_place() {
    let found = faults("[server]\nname = example.org\n");

    assert_eq!(found.len(), 1);
    assert!(found[0].contains("line 2") && !found[0].contains('\n'), "{found:?}");
}

#[test]
fn a_secret_may_be_in_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "from the file\n").unwrap();
    let file = format!("[registration]\nshared_secret_file = \"{}\"", path.display());
    let variable = pair("VOICECHAT__REGISTRATION__SHARED_SECRET_FILE", &path.display().to_string());

    let from_file = Config::load(&file, none(), none()).unwrap();
    let from_environment = Config::load("[registration]\nshared_secret = \"older\"", variable, none()).unwrap();

    for config in [from_file, from_environment] {
        assert_eq!(config.registration.shared_secret.unwrap().expose(), "from the file");
    }
}

#[test]
fn a_secret_given_twice_or_not_at_all_is_a_fault() {
    let twice = faults("[registration]\nshared_secret = \"a\"\nshared_secret_file = \"/b\"");
    let absent = faults("[registration]\nshared_secret_file = \"/no/such/file\"");

    assert_eq!(twice, ["registration.shared_secret: set it or shared_secret_file, not both"]);
    assert!(absent[0].starts_with("registration.shared_secret_file: /no/such/file:"), "{absent:?}");
}

#[test]
fn secrets_are_not_printed() {
    let text = "[registration]\nshared_secret = \"hush\"\n[database]\nurl = \"postgres://u:hush@h/n\"\n\
                [valkey]\nurl = \"redis://:hush@h\"\n[turn]\nsecret = \"hush\"\n[voice]\nas_token = \"hush\"";

    let config = Config::load(text, none(), none()).unwrap();

    assert!(!format!("{config:?}").contains("hush"));
    assert!(!format!("{:?}", config.services(config.listen.client, Vec::new()).unwrap().accounts).contains("hush"));
}
