//! Places in a room's history as clients hold them in their tokens.
//!
//! A place lies between two events. `t{depth}_{nid}` lies just before the event with this place, and so does `b{depth}_{nid}_{pos}`,
//! where the timeline of a `/sync` begins; a token of `/sync` (`s{pos}…`) lies after the room's newest event at that position. What
//! else stands in them is for [`crate::rooms::history`].

use std::{fmt, str::FromStr};

use storage::{Tx, events, history};

use crate::{Error, Result};

/// Before everything.
pub const BEGIN: events::Place = (i64::MIN, i64::MIN);
/// After everything.
pub const END: events::Place = (i64::MAX, i64::MAX);

/// A token for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// Just before the event with this place.
    Before(events::Place),
    /// After what was there at this position of the stream.
    Stream(i64),
}

impl Token {
    /// Just after the event with this place.
    #[must_use]
    pub fn after(place: events::Place) -> Self {
        Self::Before((place.0, place.1.saturating_add(1)))
    }

    /// The place in a room: everything later is greater or equal, everything earlier is less.
    ///
    /// # Errors
    /// The database's.
    pub async fn place(self, tx: &mut Tx, room_nid: i64) -> Result<events::Place> {
        match self {
            Self::Before(place) => Ok(place),
            Self::Stream(pos) => {
                let newest = history::place_at(tx, room_nid, pos).await?;
                Ok(newest.map_or(BEGIN, |(depth, nid)| (depth, nid.saturating_add(1))))
            }
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before((depth, nid)) => write!(f, "t{depth}_{nid}"),
            Self::Stream(pos) => write!(f, "s{pos}"),
        }
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::InvalidParam("this is not a token of this server".to_owned());
        if let Some((depth, rest)) = text.strip_prefix(['t', 'b']).and_then(|rest| rest.split_once('_')) {
            let nid = rest.split_once('_').map_or(rest, |(nid, _)| nid);
            let number = |text: &str| text.parse::<i64>().map_err(|_| wrong());
            return Ok(Self::Before((number(depth)?, number(nid)?)));
        }
        let pos = text.strip_prefix('s').and_then(|rest| rest.split('_').next()).and_then(|pos| pos.parse().ok());
        pos.filter(|pos| *pos >= 0).map(Self::Stream).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for token in [Token::Before((7, 300)), Token::after((7, 300)), Token::Stream(12)] {
            assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        }
        assert_eq!("s12_3_4".parse::<Token>().unwrap(), Token::Stream(12), "as sync writes it");
        assert_eq!("b7_300_12".parse::<Token>().unwrap(), Token::Before((7, 300)), "as sync writes it");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "t", "t1", "t1_", "tx_y", "s", "s-1", "12", "t9999999999999999999999_1"] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
    }
}
