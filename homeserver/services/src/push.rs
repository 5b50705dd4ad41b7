//! What a user has said of their notifications: push rules and pushers; and the notifications there were.
//!
//! [`gateway`] delivers them, [`crate::push_rules`] judges events.

pub mod gateway;
pub mod notifications;

use ruma::{
    RoomId, UserId,
    push::{
        Action, AnyPushRule, EventMatchConditionData, InsertPushRuleError, NewConditionalPushRule, NewPushRule,
        NewSimplePushRule, PushCondition, RemovePushRuleError, RuleKind, Ruleset,
    },
};
use storage::{push_rules as rules_table, pushers as table, pushers::Pusher};
use url::Url;

use crate::{
    Context, Error, Result,
    accounts::User,
    notify::{Change, Whisper},
    push_rules::{self, FORGET_RULES, Rules, content},
    timeline::Timeline,
};

/// The largest ruleset, in bytes of JSON.
const RULESET_BYTES_MAX: usize = 256 << 10;
/// Pushers of one user.
const PUSHERS_PER_USER_MAX: usize = 100;
/// The longest `app_id`, in characters (the specification's limit).
const APP_ID_LEN_MAX: usize = 64;
/// The longest `pushkey`, in bytes (the specification's limit).
const PUSHKEY_BYTES_MAX: usize = 512;
/// The path of every push gateway.
const GATEWAY_PATH: &str = "/_matrix/push/v1/notify";
/// How often a change of rules is tried when other requests change them at the same time.
const ATTEMPTS_MAX: usize = 10;
/// Family of [`Whisper::Forget`] for the list of pushers.
pub(crate) const FORGET_PUSHERS: &str = "pushers";

/// A pusher to set.
#[derive(Debug, Clone)]
pub struct NewPusher {
    /// The application.
    pub app_id: String,
    /// The application's name for the receiving device.
    pub pushkey: String,
    /// `http`; other kinds are refused.
    pub kind: String,
    /// The push gateway.
    pub url: String,
    /// The pusher as the client wrote it, JSON.
    pub body: String,
    /// Whether other users may keep the same application and push key.
    pub append: bool,
}

/// Rules, pushers and notifications. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Push {
    cx: Context,
    rules: Rules,
    timeline: Timeline,
}

impl Push {
    /// On `cx`.
    #[must_use]
    pub fn new(cx: Context, rules: Rules, timeline: Timeline) -> Self {
        Self { cx, rules, timeline }
    }

    /// A user's rules, defaults included.
    ///
    /// # Errors
    /// The database's.
    pub async fn rules(&self, user: &User) -> Result<Ruleset> {
        self.rules.of(user.nid, &user.user_id).await
    }

    /// The content of `m.push_rules` that a user's clients see when no row says otherwise.
    ///
    /// # Errors
    /// The database's.
    pub async fn rules_content(&self, user_nid: i64, user_id: &UserId) -> Result<String> {
        Ok(content(&self.rules.of(user_nid, user_id).await?))
    }

    /// One rule.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn rule(&self, user: &User, kind: RuleKind, rule_id: &str) -> Result<AnyPushRule> {
        let rules = self.rules(user).await?;
        rules.get(kind, rule_id).map(|rule| rule.to_owned()).ok_or(Error::NotFound("push rule"))
    }

    /// Set a rule of the user's own, at its place among the others.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] when the id is not allowed or the place does not exist; [`Error::TooLarge`].
    pub async fn put_rule(
        &self,
        user: &User,
        rule: NewPushRule,
        after: Option<&str>,
        before: Option<&str>,
    ) -> Result<()> {
        self.change(user, |rules| {
            rules
                .insert(rule.clone(), after, before)
                .map_err(|error: InsertPushRuleError| Error::InvalidParam(error.to_string()))
        })
        .await
    }

    /// Remove a rule of the user's own.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InvalidParam`] for a default rule.
    pub async fn delete_rule(&self, user: &User, kind: RuleKind, rule_id: &str) -> Result<()> {
        self.change(user, |rules| {
            rules.remove(kind.clone(), rule_id).map_err(|error| match error {
                RemovePushRuleError::NotFound => Error::NotFound("push rule"),
                error => Error::InvalidParam(error.to_string()),
            })
        })
        .await
    }

    /// Switch a rule on or off.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn set_enabled(&self, user: &User, kind: RuleKind, rule_id: &str, enabled: bool) -> Result<()> {
        self.change(user, |rules| {
            rules.set_enabled(kind.clone(), rule_id, enabled).map_err(|_| Error::NotFound("push rule"))
        })
        .await
    }

    /// Say what a rule does.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::TooLarge`].
    pub async fn set_actions(&self, user: &User, kind: RuleKind, rule_id: &str, actions: Vec<Action>) -> Result<()> {
        self.change(user, |rules| {
            rules.set_actions(kind.clone(), rule_id, actions.clone()).map_err(|_| Error::NotFound("push rule"))
        })
        .await
    }

    /// Let what a user said of one room hold for another of which they said nothing yet.
    ///
    /// # Errors
    /// The database's; [`Error::TooLarge`].
    pub async fn carry_over(&self, user: &User, from: &RoomId, to: &RoomId) -> Result<()> {
        let rules = self.rules(user).await?;
        if let Some(rule) = rules.room.get(from.as_str())
            && !rules.room.contains(to.as_str())
        {
            let new = NewPushRule::Room(NewSimplePushRule::new(to.to_owned(), rule.actions.clone()));
            self.put_rule(user, new, None, None).await?;
            if !rule.enabled {
                self.set_enabled(user, RuleKind::Room, to.as_str(), false).await?;
            }
        }
        // Clients mute a room by a rule that overrides all others and bears the room's id.
        if let Some(rule) = rules.override_.get(from.as_str()).filter(|rule| rule.enabled)
            && !rules.override_.contains(to.as_str())
        {
            let conditions = rule.conditions.iter().cloned().map(|condition| match condition {
                PushCondition::EventMatch(EventMatchConditionData { key, pattern, .. }) if pattern == from.as_str() => {
                    PushCondition::EventMatch(EventMatchConditionData::new(key, to.to_string()))
                }
                other => other,
            });
            let conditions = conditions.collect();
            let new = NewConditionalPushRule::new(to.to_string(), conditions, rule.actions.clone());
            self.put_rule(user, NewPushRule::Override(new), None, None).await?;
        }
        Ok(())
    }

    /// Change a user's rules; clients often change several at once, so the change is made on what is stored at that moment.
    async fn change(&self, user: &User, change: impl Fn(&mut Ruleset) -> Result<()>) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            let mut tx = self.cx.store.begin().await?;
            let stored = rules_table::of_users(&mut tx, &[user.nid]).await?.pop().map(|(_, body)| body);
            let mut rules = stored
                .as_deref()
                .and_then(|body| push_rules::parse(body, &user.user_id))
                .unwrap_or_else(|| push_rules::defaults(&user.user_id));
            let changed = change(&mut rules).and_then(|()| {
                let body = content(&rules);
                if body.len() <= RULESET_BYTES_MAX {
                    return Ok(body);
                }
                Err(Error::TooLarge(format!("push rules have at most {RULESET_BYTES_MAX} bytes")))
            });
            let body = match changed {
                Ok(body) => body,
                Err(error) => {
                    tx.rollback().await?;
                    return Err(error);
                }
            };
            if !rules_table::put(&mut tx, user.nid, &body, stored.as_deref()).await? {
                tx.rollback().await?;
                continue;
            }
            let span = tx.commit().await?;
            self.cx.notify.whisper(&Whisper::Forget(FORGET_RULES.to_owned(), user.nid.to_string()));
            self.cx.notify.publish(Change { users: vec![user.nid], ..Change::at(span) });
            return Ok(());
        }
        Err(Error::internal("push rules changed too often at once"))
    }

    /// A user's pushers.
    ///
    /// # Errors
    /// The database's.
    pub async fn pushers(&self, user: &User) -> Result<Vec<Pusher>> {
        Ok(table::of_user(&mut self.cx.store.read().await?, user.nid).await?)
    }

    /// Set a pusher. It is served from now on, not with what was before.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] when it is of a kind we do not serve, its gateway's address is none, or a name is too long;
    /// [`Error::Forbidden`] when the user has too many.
    pub async fn put_pusher(&self, user: &User, pusher: NewPusher) -> Result<()> {
        check(&pusher)?;
        let row = Pusher {
            user_nid: user.nid,
            app_id: pusher.app_id,
            pushkey: pusher.pushkey,
            body: pusher.body,
            url: pusher.url,
            device_id: user.device_id.as_ref().map(ToString::to_string),
            created_ts: i64::try_from(self.cx.clock.now_ms()).unwrap_or(i64::MAX),
            done_pos: self.cx.notify.stable(),
            failing_since_ts: None,
            retry_ts: 0,
            failures: 0,
        };
        let mut tx = self.cx.store.begin().await?;
        let others = table::of_user(&mut tx, user.nid).await?;
        let is_new = !others.iter().any(|other| other.app_id == row.app_id && other.pushkey == row.pushkey);
        if is_new && others.len() >= PUSHERS_PER_USER_MAX {
            tx.rollback().await?;
            return Err(Error::forbidden(format!("a user has at most {PUSHERS_PER_USER_MAX} pushers")));
        }
        if !pusher.append {
            table::remove_of_others(&mut tx, user.nid, &row.app_id, &row.pushkey).await?;
        }
        table::put(&mut tx, &row).await?;
        tx.commit().await?;
        self.pushers_changed();
        Ok(())
    }

    /// Remove a pusher; removing one that is not there is well too.
    ///
    /// # Errors
    /// The database's.
    pub async fn delete_pusher(&self, user: &User, app_id: &str, pushkey: &str) -> Result<()> {
        let mut tx = self.cx.store.begin().await?;
        table::remove(&mut tx, user.nid, app_id, pushkey).await?;
        tx.commit().await?;
        self.pushers_changed();
        Ok(())
    }

    /// The pushers of devices that are gone go with them.
    ///
    /// # Errors
    /// The database's.
    pub async fn devices_gone(&self, user_nid: i64, device_ids: &[&str]) -> Result<()> {
        let mut tx = self.cx.store.begin().await?;
        table::remove_of_devices(&mut tx, user_nid, device_ids).await?;
        tx.commit().await?;
        self.pushers_changed();
        Ok(())
    }

    /// After a password change only the pushers of the device that made it stay.
    ///
    /// # Errors
    /// The database's.
    pub async fn keep_device_only(&self, user_nid: i64, device_id: &str) -> Result<()> {
        let mut tx = self.cx.store.begin().await?;
        table::remove_but_device(&mut tx, user_nid, device_id).await?;
        tx.commit().await?;
        self.pushers_changed();
        Ok(())
    }

    fn pushers_changed(&self) {
        self.cx.notify.whisper(&Whisper::Forget(FORGET_PUSHERS.to_owned(), String::new()));
    }
}

fn check(pusher: &NewPusher) -> Result<()> {
    let refuse = |words: String| Err(Error::InvalidParam(words));
    if pusher.kind != "http" {
        return refuse("pushers of kind http are served, no others".to_owned());
    }
    if pusher.app_id.chars().count() > APP_ID_LEN_MAX {
        return refuse(format!("app_id has at most {APP_ID_LEN_MAX} characters"));
    }
    if pusher.pushkey.len() > PUSHKEY_BYTES_MAX {
        return refuse(format!("pushkey has at most {PUSHKEY_BYTES_MAX} bytes"));
    }
    let is_gateway = Url::parse(&pusher.url)
        .is_ok_and(|url| matches!(url.scheme(), "https" | "http") && url.has_host() && url.path() == GATEWAY_PATH);
    if !is_gateway {
        return refuse(format!("data.url is an address with the path {GATEWAY_PATH}"));
    }
    Ok(())
}
