//! Accounts as clients meet them: registering, logging in and out, devices, profiles, administrators, rates.

mod fixture;

#[path = "accounts/admin.rs"]
mod admin;
#[path = "accounts/appservices.rs"]
mod appservices;
#[path = "accounts/devices.rs"]
mod devices;
#[path = "accounts/limits.rs"]
mod limits;
#[path = "accounts/login.rs"]
mod login;
#[path = "accounts/password.rs"]
mod password;
#[path = "accounts/profiles.rs"]
mod profiles;
#[path = "accounts/refresh.rs"]
mod refresh;
#[path = "accounts/registration.rs"]
mod registration;
#[path = "accounts/tokens.rs"]
mod tokens;
#[path = "accounts/uia.rs"]
mod uia;
