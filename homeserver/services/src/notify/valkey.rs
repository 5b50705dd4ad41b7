//! News between instances over Valkey (or Redis) pub/sub.
//!
//! A wake-up only: a message that is lost or late is repaired by position in [`super::Notify`].

use std::{fmt, sync::Arc};

use fred::{
    clients::SubscriberClient,
    interfaces::{ClientLike as _, EventInterface as _, PubsubInterface as _},
    types::{Builder, config::Config},
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Bus, Message, Notify};
use crate::{Error, Result, clock::Randomness};

/// Messages that may wait to be sent; beyond it they are dropped and repaired by position.
const OUTBOX_MAX: usize = 4096;
/// Messages that may wait to be read.
const INBOX_MAX: usize = 8192;

/// A message with the instance that sent it.
#[derive(Serialize, Deserialize)]
struct Envelope {
    from: String,
    message: Message,
}

/// Sends our news to the channel `voicechat:SERVER:news`.
pub struct Valkey {
    outbox: mpsc::Sender<Message>,
}

impl fmt::Debug for Valkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Valkey").finish_non_exhaustive()
    }
}

impl Bus for Valkey {
    fn send(&self, message: &Message) {
        // Full or closed: the others find the gap by its position.
        let _ = self.outbox.try_send(message.clone());
    }
}

impl Valkey {
    /// Connect to `url` and give `notify` the news of the other instances from now on.
    ///
    /// # Errors
    /// [`Error::Internal`] when the address is wrong or nobody answers.
    pub async fn connect(url: &str, server_name: &str, randomness: &Randomness, notify: &Notify) -> Result<()> {
        let config = Config::from_url(url).map_err(|error| Error::Internal(format!("valkey address: {error}")))?;
        let mut builder = Builder::from_config(config);
        builder.with_performance_config(|performance| performance.broadcast_channel_capacity = INBOX_MAX);
        builder.set_policy(fred::types::config::ReconnectPolicy::new_exponential(0, 100, 5_000, 2));
        let publisher = builder.build().map_err(Error::internal)?;
        let subscriber: SubscriberClient = builder.build_subscriber_client().map_err(Error::internal)?;
        publisher.init().await.map_err(|error| Error::Internal(format!("valkey does not answer: {error}")))?;
        subscriber.init().await.map_err(|error| Error::Internal(format!("valkey does not answer: {error}")))?;
        let channel = format!("voicechat:{server_name}:news");
        let name: Arc<str> = randomness.letters(16).into();

        let (outbox, mut waiting) = mpsc::channel(OUTBOX_MAX);
        let (from, to) = (Arc::clone(&name), channel.clone());
        tokio::spawn(async move {
            while let Some(message) = waiting.recv().await {
                let envelope = Envelope { from: from.to_string(), message };
                let Ok(text) = serde_json::to_string(&envelope) else { continue };
                if let Err(error) = publisher.publish::<i64, _, _>(&to, text).await {
                    tracing::debug!(%error, "news not sent; others will find the gap");
                }
            }
        });

        let mut inbox = subscriber.message_rx();
        subscriber.subscribe(channel).await.map_err(Error::internal)?;
        subscriber.manage_subscriptions();
        let listener = notify.clone();
        tokio::spawn(async move {
            let _kept = subscriber;
            loop {
                match inbox.recv().await {
                    Ok(message) => {
                        let text = message.value.into_string().unwrap_or_default();
                        match serde_json::from_str::<Envelope>(&text) {
                            Ok(envelope) if envelope.from == *name => {}
                            Ok(envelope) => listener.receive(envelope.message),
                            Err(error) => tracing::warn!(%error, "news that cannot be read"),
                        }
                    }
                    // Missed messages: the database knows them all.
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                        if let Err(error) = listener.repair().await {
                            tracing::warn!(%error, "missed news cannot be repaired yet");
                        }
                    }
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        notify.connect(Box::new(Valkey { outbox }));
        Ok(())
    }
}
