//! What clients and other servers may send however badly they mean it.

mod fixture;
mod listening;

#[path = "hostile/nonsense.rs"]
mod nonsense;
#[path = "hostile/sweep.rs"]
mod sweep;
#[path = "hostile/words.rs"]
mod words;
