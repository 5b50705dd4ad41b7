//! The rules of a room, seen from outside the crate: tables of cases and properties.

mod authorising;
mod building;
mod hostile;
mod layers;
mod receiving;
mod resolving;
mod shown;
mod told;
mod world;
