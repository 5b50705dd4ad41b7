//! The words of events, and how they come into their table.

use room::{
    auth::facts,
    event::{Pdu, kind},
};
use storage::{
    search_texts::{self, NewText},
    timeline,
};

use super::Search;
use crate::Result;

/// The parts of contents that can be searched.
pub const PARTS: [&str; 3] = ["content.body", "content.name", "content.topic"];

/// Events read from the stream at a time.
const BATCH_LEN: i64 = 500;
/// Bytes of a text whose words are kept.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// The longest word, in characters; the rest of it is not looked at.
const WORD_LEN_MAX: usize = 64;

impl Search {
    /// Read the stream to its end. Several instances may do so at once: each step is taken by one of them.
    pub(super) async fn catch_up(&self) -> Result<()> {
        let _one = self.indexing.lock().await;
        loop {
            let mut tx = self.cx.store.read().await?;
            let from = search_texts::progress(&mut tx).await?;
            let until = timeline::newest(&mut tx).await?;
            if from >= until {
                return Ok(());
            }
            let rows = timeline::between(&mut tx, from, until, BATCH_LEN).await?;
            drop(tx);
            let is_full = i64::try_from(rows.len()).is_ok_and(|len| len == BATCH_LEN);
            let to = rows.last().filter(|_| is_full).map_or(until, |last| last.pos);
            let positions: Vec<i64> = rows.iter().map(|row| row.pos).collect();
            let events = self.timeline.events.read(rows.into_iter().map(|row| row.event).collect()).await?;
            let mut tx = self.cx.store.begin().await?;
            if !search_texts::advance(&mut tx, from, to).await? {
                tx.rollback().await?;
                continue;
            }
            for (event, pos) in events.iter().zip(positions) {
                let Some((part, text)) = text(&event.pdu) else { continue };
                let words = joined(&words(&text));
                let new = NewText { room_nid: event.room_nid, event_nid: event.nid, pos, part, words };
                search_texts::put(&mut tx, &new).await?;
            }
            tx.commit().await?;
        }
    }
}

/// What of an event can be searched.
fn text(pdu: &Pdu) -> Option<(&'static str, String)> {
    let (part, field) = match (pdu.kind.as_str(), pdu.state_key.as_deref()) {
        (kind::MESSAGE, None) => (PARTS[0], "body"),
        (kind::NAME, Some("")) => (PARTS[1], "name"),
        (kind::TOPIC, Some("")) => (PARTS[2], "topic"),
        _ => return None,
    };
    let mut text: String = facts::field(&pdu.content, field)?;
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    Some((part, text)).filter(|(_, text)| !text.is_empty())
}

/// The words of a text in small letters. Scripts that put no spaces between words give a word for each character.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut len = 0;
    for c in text.chars().flat_map(char::to_lowercase) {
        if stands_alone(c) {
            words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
            words.push(c.to_string());
            len = 0;
        } else if c.is_alphanumeric() {
            if len < WORD_LEN_MAX {
                word.push(c);
            }
            len += 1;
        } else {
            words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
            len = 0;
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// Whether a character is a word of its own: Han, kana, Thai, Lao, Khmer, Burmese.
fn stands_alone(c: char) -> bool {
    matches!(u32::from(c),
        0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff
        | 0xf900..=0xfaff | 0x20000..=0x323af)
        && c.is_alphanumeric()
}

/// Words as they are kept: each between spaces.
fn joined(words: &[String]) -> String {
    let mut joined = String::from(" ");
    for word in words {
        joined.push_str(word);
        joined.push(' ');
    }
    joined
}

/// How well a text matches: how much of it is what was searched for. Zero unless every word is there.
#[must_use]
pub fn rank(text: &str, wanted: &[String]) -> f64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    let hits = |wanted: &String| words.iter().filter(|word| word.starts_with(wanted.as_str())).count();
    let hits: Vec<usize> = wanted.iter().map(hits).collect();
    if words.is_empty() || hits.contains(&0) {
        return 0.0;
    }
    let count = |number: usize| u32::try_from(number).map_or(f64::MAX, f64::from);
    count(hits.iter().sum()) / count(words.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_stands_between_signs_and_spaces() {
        assert_eq!(words("Hello, WORLD! it's 5_6"), ["hello", "world", "it", "s", "5", "6"]);
        assert_eq!(words("  "), Vec::<String>::new());
        assert_eq!(words("Über-Straße"), ["über", "straße"]);
    }

    #[test]
    fn characters_of_scripts_without_spaces_are_words() {
        assert_eq!(words("你好 matrix世界"), ["你", "好", "matrix", "世", "界"]);
    }

    #[test]
    fn a_text_matches_when_each_word_begins_one_of_its_words() {
        let text = joined(&words("Message number 4"));
        let rank_of = |term: &str| rank(&text, &words(term));
        assert!(rank_of("mess 4") > 0.0);
        assert!(rank_of("message 5") == 0.0);
        assert!(rank_of("essage") == 0.0, "a word does not match from its middle");
        assert!(rank_of("message number 4") > rank_of("message"), "more of the text is better");
    }

    #[test]
    fn nothing_a_text_holds_means_anything_to_the_database() {
        assert!(words("100% _under_ 'quoted' \\").iter().all(|word| word.chars().all(char::is_alphanumeric)));
    }
}
