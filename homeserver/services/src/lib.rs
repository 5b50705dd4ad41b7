//! Every rule of the homeserver that needs IO.
//!
//! One struct a noun, cheap to clone, made once in [`Services::start`] with what it depends on: the arrows between services are the
//! arguments of their constructors, and they never form a circle. Services know nothing of HTTP: what they take and return are
//! plain values, events and the specification's own content types. Nothing here is reached from below ([`storage`], [`room`]).
//!
//! Floors, lowest first: `error clock notify signing user` → `context` → `accounts devices keys to_device account_data profiles
//! receipts typing presence media appservices push federation` → `timeline` → `rooms incoming sync`.

pub mod account_data;
pub mod accounts;
pub mod appservices;
pub mod clock;
pub mod context;
pub mod devices;
pub mod directory;
pub mod error;
pub mod federation;
pub mod filters;
pub mod ignored;
pub mod incoming;
pub mod joined;
pub mod joining;
pub mod key_backup;
pub mod keys;
pub mod limits;
pub mod media;
mod memory;
pub mod notify;
mod one_at_a_time;
pub mod outgoing;
pub mod place;
pub mod presence;
pub mod profiles;
pub mod push;
pub mod push_rules;
pub mod reading;
pub mod receipts;
pub mod relations;
pub mod reports;
pub mod resident;
pub mod rooms;
pub mod search;
pub mod signing;
pub mod spaces;
pub mod sync;
pub mod timeline;
pub mod to_device;
pub mod turn;
pub mod typing;
pub mod user;
pub mod user_directory;
pub mod valkey;
pub mod view;
pub mod welcome;
pub mod well_known;

pub use context::Context;
pub use error::{Error, Result};
pub use storage::Settings as DatabaseSettings;

use std::{ops::Deref, sync::Arc};

/// The handle given to routes: every service by its noun. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Services(Arc<All>);

/// The services.
#[derive(Debug)]
pub struct All {
    /// Rates.
    pub limits: limits::Limits,
    /// Accounts and access tokens.
    pub accounts: accounts::Accounts,
    /// Bridges, bots and the voice service.
    pub appservices: appservices::Appservices,
    /// Devices.
    pub devices: devices::Devices,
    /// Profiles.
    pub profiles: profiles::Profiles,
    /// Account data and tags.
    pub account_data: account_data::AccountData,
    /// Filters of sync.
    pub filters: filters::Filters,
    /// Public keys of devices and users.
    pub keys: keys::Keys,
    /// Encrypted room keys.
    pub key_backup: key_backup::KeyBackup,
    /// Messages between devices.
    pub to_device: to_device::ToDevice,
    /// Files.
    pub media: media::Media,
    /// Who is there.
    pub presence: presence::Presence,
    /// Whom events are pushed to.
    pub push: push::Push,
    /// Delivers notifications.
    pub push_gateway: push::gateway::Gateway,
    /// Which event notifies whom.
    pub push_rules: push_rules::Rules,
    /// Who has read what.
    pub receipts: receipts::Receipts,
    /// Who types where.
    pub typing: typing::Typing,
    /// Other servers.
    pub federation: federation::Federation,
    /// What other servers are told.
    pub queue: federation::queue::Queue,
    /// What other servers send us.
    pub incoming: incoming::Incoming,
    /// What other servers ask of us.
    pub resident: resident::Resident,
    /// Asking other servers to let our users in.
    pub joining: joining::Joining,
    /// Events of rooms.
    pub timeline: timeline::Timeline,
    /// Events as readers see them.
    pub view: view::View,
    /// Who may read what.
    pub reading: reading::Reading,
    /// Rooms.
    pub rooms: rooms::Rooms,
    /// What was said about events.
    pub relations: relations::Relations,
    /// Rooms by name.
    pub directory: directory::Directory,
    /// Rooms seen from outside.
    pub spaces: spaces::Spaces,
    /// Messages by their words.
    pub search: search::Search,
    /// Users by name.
    pub user_directory: user_directory::UserDirectory,
    /// What users find wrong.
    pub reports: reports::Reports,
    /// What happened since a client last asked.
    pub sync: sync::Sync,
    /// TURN servers for calls.
    pub turn: turn::Turn,
    /// The first administrator's link.
    pub welcome: welcome::Welcome,
    /// Where this server is found.
    pub well_known: well_known::WellKnown,
}

/// The settings of every service.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where instances share rates and refresh tokens; a single instance needs none.
    pub valkey_url: Option<String>,
    /// Rates.
    pub limits: limits::Settings,
    /// Accounts.
    pub accounts: accounts::Settings,
    /// Application services.
    pub appservices: appservices::Settings,
    /// Public keys of devices and users.
    pub keys: keys::Settings,
    /// Rooms.
    pub rooms: rooms::Settings,
    /// Other servers.
    pub federation: federation::Settings,
    /// Files.
    pub media: media::Settings,
    /// Who is there.
    pub presence: presence::Settings,
    /// TURN servers for calls.
    pub turn: turn::Settings,
    /// Where this server is found.
    pub well_known: well_known::Settings,
}

impl Services {
    /// Make every service, the lowest floor first.
    ///
    /// # Errors
    /// What a service's start may meet.
    pub async fn start(cx: Context, settings: Settings) -> Result<Self> {
        let valkey = match &settings.valkey_url {
            Some(url) => Some(valkey::Valkey::connect(url, cx.server_name.as_str()).await?),
            None => None,
        };
        let registry = appservices::registry::Registry::load(&settings.appservices.registry, &cx.server_name)?;
        let limits = limits::Limits::new(cx.clone(), settings.limits, valkey.clone());
        let bearers = Arc::new(registry.clone());
        let accounts =
            accounts::Accounts::start(cx.clone(), settings.accounts, limits.clone(), valkey, bearers).await?;
        let outgoing = outgoing::Outgoing::new(&settings.federation.outgoing)?;
        let doorbell = federation::queue::Doorbell::new(cx.notify.clone(), settings.federation.is_enabled);
        let federation = federation::Federation::start(cx.clone(), settings.federation, outgoing.clone()).await?;
        let others = Arc::new(federation.client().clone());
        let keys = keys::Keys::new(cx.clone(), settings.keys, others.clone());
        let devices = devices::Devices::start(cx.clone(), accounts.tokens.clone(), keys.clone());
        let profiles = profiles::Profiles::new(cx.clone(), others.clone());
        let account_data = account_data::AccountData::new(cx.clone());
        let filters = filters::Filters::new(cx.clone());
        let key_backup = key_backup::KeyBackup::new(cx.clone());
        let to_device = to_device::ToDevice::new(cx.clone(), Arc::new(doorbell.clone()));
        let presence = presence::Presence::new(cx.clone(), settings.presence);
        let receipts = receipts::Receipts::new(cx.clone());
        let typing = typing::Typing::new(cx.clone());
        let media = media::Media::start(cx.clone(), settings.media, others.clone()).await?;
        let push_rules = push_rules::Rules::new(cx.clone());
        let timeline = timeline::Timeline::start(cx.clone(), push_rules.clone());
        let told = federation::queue::Sources {
            timeline: timeline.clone(),
            keys: keys.clone(),
            receipts: receipts.clone(),
            typing: typing.clone(),
            presence: presence.clone(),
        };
        let queue = federation::queue::Queue::start(cx.clone(), federation.client().clone(), told, doorbell).await?;
        let push = push::Push::new(cx.clone(), push_rules.clone(), timeline.clone());
        let appservices = appservices::Appservices::start(
            cx.clone(),
            &settings.appservices,
            registry.clone(),
            &outgoing,
            &accounts,
            &timeline,
        )
        .await?;
        let ephemeral = incoming::Ephemeral {
            typing: typing.clone(),
            receipts: receipts.clone(),
            presence: presence.clone(),
            keys: keys.clone(),
            to_device: to_device.clone(),
        };
        let incoming = incoming::Incoming::start(cx.clone(), timeline.clone(), federation.clone(), ephemeral).await?;
        let resident = resident::Resident::new(cx.clone(), timeline.clone(), incoming.clone());
        let joining =
            joining::Joining::new(cx.clone(), timeline.clone(), federation.clone(), incoming.clone(), resident.clone());
        let view = view::View::new(cx.clone(), timeline.clone());
        let ignored = ignored::Ignored::start(cx.clone());
        let registry = appservices.registry().clone();
        let reading = reading::Reading::new(cx.clone(), timeline.clone(), ignored.clone(), registry);
        let relations =
            relations::Relations::new(cx.clone(), timeline.clone(), view.clone(), reading.clone(), incoming.clone());
        let directory = directory::Directory::new(
            cx.clone(),
            timeline.clone(),
            reading.clone(),
            appservices.clone(),
            others.clone(),
        );
        let spaces = spaces::Spaces::new(cx.clone(), timeline.clone(), others);
        let search = search::Search::new(cx.clone(), timeline.clone(), view.clone(), reading.clone());
        let user_directory = user_directory::UserDirectory::new(cx.clone(), timeline.clone());
        let reports = reports::Reports::new(cx.clone(), timeline.clone(), reading.clone());
        let sources = rooms::Sources {
            timeline: timeline.clone(),
            view: view.clone(),
            reading: reading.clone(),
            profiles: profiles.clone(),
            appservices: appservices.clone(),
            joining: joining.clone(),
            incoming: incoming.clone(),
            directory: directory.clone(),
            account_data: account_data.clone(),
            push: push.clone(),
        };
        let rooms = rooms::Rooms::start(cx.clone(), settings.rooms, sources).await?;
        let sources = sync::Sources {
            timeline: timeline.clone(),
            view: view.clone(),
            reading: reading.clone(),
            ignored: ignored.clone(),
            push_rules: push_rules.clone(),
            receipts: receipts.clone(),
            typing: typing.clone(),
            presence: presence.clone(),
            keys: keys.clone(),
            to_device: to_device.clone(),
        };
        let sync = sync::Sync::start(cx.clone(), sources);
        let outlet = push::gateway::outlet::HttpOutlet::new(outgoing)?;
        let unread = Arc::new(sync.clone());
        let push_gateway = push::gateway::Gateway::new(cx.clone(), timeline.clone(), unread, Arc::new(outlet));
        push_gateway.run();
        let turn = turn::Turn::new(cx.clone(), settings.turn);
        let welcome = welcome::Welcome::new(cx.clone(), accounts.clone());
        let well_known = well_known::WellKnown::new(cx.server_name.clone(), settings.well_known);
        Ok(Self(Arc::new(All {
            limits,
            accounts,
            appservices,
            devices,
            profiles,
            account_data,
            filters,
            keys,
            key_backup,
            to_device,
            media,
            presence,
            push,
            push_gateway,
            push_rules,
            receipts,
            typing,
            federation,
            queue,
            incoming,
            resident,
            joining,
            timeline,
            view,
            reading,
            rooms,
            relations,
            directory,
            spaces,
            search,
            user_directory,
            reports,
            sync,
            turn,
            welcome,
            well_known,
        })))
    }
}

impl Deref for Services {
    type Target = All;

    fn deref(&self) -> &All {
        &self.0
    }
}
