//! The rules of a room, seen from outside the crate: tables of cases and properties.

mod building;
mod hostile;
mod layers;
mod resolving;
mod told;
mod world;
