//! Texts as they may stand in the database: without U+0000, which PostgreSQL keeps in none.
//!
//! Clients and other servers may send it wherever the specification allows any text. Whatever is bound to a statement passes here, on
//! both databases, so that they never differ and a text can never make a statement (and the commit it shares with others) fail.
//! U+FFFD takes its place. Whole events are JSON, in which it is written as an escape, and stay as they are.

use std::borrow::Cow;

/// What takes the place of U+0000.
const REPLACEMENT: &str = "\u{fffd}";

/// A value that can be bound, as it is kept.
pub(crate) trait Bound {
    /// What is bound.
    type Kept;

    /// The value without U+0000.
    fn kept(self) -> Self::Kept;
}

impl<'a> Bound for &'a str {
    type Kept = Cow<'a, str>;

    fn kept(self) -> Self::Kept {
        if self.contains('\0') { Cow::Owned(self.replace('\0', REPLACEMENT)) } else { Cow::Borrowed(self) }
    }
}

impl<'a> Bound for &'a String {
    type Kept = Cow<'a, str>;

    fn kept(self) -> Self::Kept {
        self.as_str().kept()
    }
}

impl Bound for String {
    type Kept = String;

    fn kept(self) -> Self::Kept {
        if self.contains('\0') { self.replace('\0', REPLACEMENT) } else { self }
    }
}

impl<T: Bound> Bound for Option<T> {
    type Kept = Option<T::Kept>;

    fn kept(self) -> Self::Kept {
        self.map(Bound::kept)
    }
}

impl<T: Bound> Bound for Vec<T> {
    type Kept = Vec<T::Kept>;

    fn kept(self) -> Self::Kept {
        self.into_iter().map(Bound::kept).collect()
    }
}

/// Values that are no texts.
macro_rules! no_texts {
    ($($kind:ty),*) => {
        $(impl Bound for $kind {
            type Kept = Self;

            fn kept(self) -> Self {
                self
            }
        })*
    };
}

no_texts!(i64, i32, bool, f64, u8, &[u8], &Vec<u8>);

/// A JSON text whose strings, read by the database, have no U+0000.
pub(crate) fn json(text: String) -> String {
    if !text.contains("\\u0000") {
        return text;
    }
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        kept.push_str(before);
        let (escape, after) = match escape.strip_prefix("\\u0000") {
            Some(after) => ("\\ufffd", after),
            // A backslash and what it escapes, which may be another backslash.
            None => escape.split_at(escape.char_indices().nth(2).map_or(escape.len(), |(at, _)| at)),
        };
        kept.push_str(escape);
        rest = after;
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_without_what_postgresql_cannot_keep() {
        assert_eq!("a\0b".kept(), "a\u{fffd}b");
        assert!(matches!("ab".kept(), Cow::Borrowed("ab")));
        assert_eq!(Some("\0".to_owned()).kept().as_deref(), Some("\u{fffd}"));
        assert_eq!(vec!["a", "\0"].kept(), ["a", "\u{fffd}"]);
        assert_eq!(b"\0".as_slice().kept(), b"\0");
    }

    #[test]
    fn a_list_in_json_loses_the_character_and_not_the_words_that_name_it() {
        for list in [vec!["a\0b", "\\u0000", "\\\\\0", "\"\0\""], vec!["plain", "\\"], vec![]] {
            let kept = json(serde_json::to_string(&list).unwrap());

            let read: Vec<String> = serde_json::from_str(&kept).unwrap();
            assert_eq!(read, list.iter().map(|item| item.replace('\0', REPLACEMENT)).collect::<Vec<_>>());
        }
    }
}
