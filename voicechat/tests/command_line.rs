//! The binary as people use it: started, asked, stopped.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

fn voicechat(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voicechat"));
    command.current_dir(folder).env_clear();
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    voicechat(folder).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A homeserver without voice on free ports, read up to the line with its link.
struct Server {
    child: Child,
    said: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let arguments = ["homeserver", "--listen", "127.0.0.1:0", "--federation-listen", "127.0.0.1:0"];
        let mut child = voicechat(folder).args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        // The line about the other servers is the last that is always there; the link comes after it.
        for line in lines.by_ref() {
            said.push_str(&line.unwrap());
            said.push('\n');
            if said.contains("Other servers") && (said.contains("token=") || !said.contains("migrating")) {
                break;
            }
        }
        Self { child, said }
    }

    fn address(&self) -> &str {
        self.said.split("http://").nth(1).unwrap().split_whitespace().next().unwrap()
    }

    fn get(&self, path: &str) -> String {
        let mut connection = TcpStream::connect(self.address()).unwrap();
        write!(connection, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    fn link(&self) -> &str {
        let at = self.said.find("/voicechat/welcome?token=").unwrap();
        self.said[at..].split_whitespace().next().unwrap()
    }

    /// Ask it to stop, and wait until it has. Nobody listens to what it says meanwhile.
    fn stop(mut self) -> i32 {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        self.child.wait().unwrap().code().unwrap()
    }
}

#[test]
fn a_server_needs_nothing_written_by_hand_and_keeps_its_link_until_it_is_used() {
    let folder = tempfile::tempdir().unwrap();

    let first = Server::start(folder.path());
    let versions = first.get("/_matrix/client/versions");
    let page = first.get(first.link());
    let link = first.link().to_owned();
    let status = first.stop();
    let database = folder.path().join("data/voicechat.db");

    assert!(versions.starts_with("HTTP/1.1 200 OK") && versions.contains("v1.19"), "{versions}");
    assert!(page.contains("Welcome to VoiceChat"), "{page}");
    assert_eq!(status, 0);
    assert!(database.exists());
    let made = run(folder.path(), &["admin", "create-user", "alice", "--admin"]);
    assert!(stdout(&made).starts_with("@alice:localhost:8448 has an account\npassword: "), "{}", stderr(&made));
    let second = Server::start(folder.path());
    assert!(!second.said.contains("token="), "{}", second.said);
    assert!(second.get(&link).starts_with("HTTP/1.1 410"));
    second.stop();
}

#[test]
fn administrators_work_on_accounts_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut create = voicechat(folder.path())
        .args(["admin", "create-user", "bob", "--password-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    create.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    let created = create.wait_with_output().unwrap();

    let again = run(folder.path(), &["admin", "create-user", "bob"]);
    let admin = run(folder.path(), &["admin", "make-admin", "bob"]);
    let reset = run(folder.path(), &["admin", "reset-password", "@bob:localhost:8448"]);
    let ended = run(folder.path(), &["admin", "deactivate", "bob"]);
    let ended_before = run(folder.path(), &["admin", "deactivate", "bob"]);
    let nobody = run(folder.path(), &["admin", "make-admin", "nobody"]);

    assert_eq!(stdout(&created), "@bob:localhost:8448 has an account\n");
    assert_eq!((again.status.code(), stderr(&again).trim()), (Some(1), "voicechat: this user name is taken"));
    assert_eq!(stdout(&admin), "@bob:localhost:8448 is now an administrator\n");
    assert!(stdout(&reset).contains("password: "));
    assert_eq!(stdout(&ended), "@bob:localhost:8448 is deactivated\n");
    assert_eq!(stderr(&ended_before).trim(), "voicechat: @bob:localhost:8448 has been deactivated");
    assert_eq!(stderr(&nobody).trim(), "voicechat: there is no account called nobody");
}

#[test]
fn an_administrator_replaces_the_signing_key() {
    let folder = tempfile::tempdir().unwrap();

    let first = run(folder.path(), &["admin", "rotate-key"]);
    let second = run(folder.path(), &["admin", "rotate-key"]);

    let (first, second) = (stdout(&first), stdout(&second));
    let [new, _, old] = first.split([' ', ';']).take(3).collect::<Vec<_>>()[..] else { panic!("{first}") };
    assert!(new.starts_with("ed25519:") && old.starts_with("ed25519:") && new != old, "{first}");
    assert!(second.contains(&format!("replaces {new};")), "{second}");
}

#[test]
fn the_configuration_is_shown_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let example = run(folder.path(), &["config", "--example"]);
    std::fs::write(folder.path().join("good.toml"), stdout(&example)).unwrap();
    std::fs::write(folder.path().join("bad.toml"), "[server]\nnmae = \"x\"\n[log]\nformat = \"xml\"\n").unwrap();

    let good = run(folder.path(), &["config", "--check", "good.toml"]);
    let bad = run(folder.path(), &["config", "--check", "bad.toml"]);
    let started = run(folder.path(), &["homeserver", "--config", "bad.toml"]);

    assert_eq!((good.status.code(), stdout(&good).as_str()), (Some(0), "good.toml: ok\n"));
    assert_eq!(bad.status.code(), Some(2));
    assert_eq!(
        stdout(&bad),
        "bad.toml: server.nmae: no such key; did you mean name?\nbad.toml: log.format: expected one of \"text\" \"json\"\n"
    );
    assert_eq!(started.status.code(), Some(1));
    assert!(stderr(&started).contains("did you mean name?"), "{}", stderr(&started));
}

#[test]
fn the_version_and_unknown_commands_are_told() {
    let folder = tempfile::tempdir().unwrap();

    let version = run(folder.path(), &["version"]);
    let unknown = run(folder.path(), &["fly"]);

    assert_eq!(stdout(&version), format!("voicechat {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(unknown.status.code(), Some(2));
}
