//! Refresh tokens: opaque, kept hashed, good once. In Valkey when there is one, else in the database.
//!
//! The rules are those of [`storage::refresh_tokens`]: a renewal makes a child; the parent stays good until the child or its
//! access token is used, for a client may lose an answer; coming back with a parent whose child was used ends the
//! family. Each operation is one transaction, or one script in Valkey.

use fred::{interfaces::LuaInterface as _, types::Value};
use storage::refresh_tokens::{self, RefreshToken};

use crate::{Context, Error, Result, valkey::Valkey};

/// How a renewal ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// The new token stands; these access tokens end.
    Done {
        /// Access tokens (hashes) that end.
        ended: Vec<String>,
    },
    /// The token was used before: its family is gone, and these access tokens end.
    Reused {
        /// Access tokens (hashes) that end.
        ended: Vec<String>,
    },
    /// No such token.
    Unknown,
}

/// The token that takes another's place.
#[derive(Debug, Clone)]
pub struct Successor<'a> {
    /// SHA-256, hexadecimal.
    pub hash: &'a str,
    /// The access token given with it.
    pub access_hash: &'a str,
    /// How long it is good, in milliseconds.
    pub lifetime_ms: i64,
}

/// Where refresh tokens are kept. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RefreshTokens {
    cx: Context,
    valkey: Option<Valkey>,
}

impl RefreshTokens {
    /// In `valkey` when given, else in the database of `cx`.
    #[must_use]
    pub fn new(cx: Context, valkey: Option<Valkey>) -> Self {
        Self { cx, valkey }
    }

    /// Keep the first token of a family.
    ///
    /// # Errors
    /// The database's or Valkey's.
    pub async fn put(&self, token: &RefreshToken, lifetime_ms: i64) -> Result<()> {
        if let Some(valkey) = &self.valkey {
            let arguments = vec![
                token.hash.clone(),
                token.family.clone(),
                token.user_nid.to_string(),
                token.device_id.clone(),
                token.access_hash.clone(),
                lifetime_ms.to_string(),
            ];
            run(valkey, PUT, arguments).await?;
            return Ok(());
        }
        let mut tx = self.cx.store.begin().await?;
        refresh_tokens::put(&mut tx, token).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Whose the token `hash` is, and on which device, if there is such a token.
    ///
    /// # Errors
    /// The database's or Valkey's.
    pub async fn owner(&self, hash: &str) -> Result<Option<(i64, String)>> {
        if let Some(valkey) = &self.valkey {
            let mut answer = run(valkey, OWNER, vec![hash.to_owned()]).await?.into_iter();
            let (Some(user), Some(device_id)) = (answer.next(), answer.next()) else { return Ok(None) };
            let user_nid = user.parse().map_err(|_| Error::internal("a refresh token in Valkey without its user"))?;
            return Ok(Some((user_nid, device_id)));
        }
        let mut tx = self.cx.store.read().await?;
        Ok(refresh_tokens::owner(&mut tx, hash).await?)
    }

    /// Renew with the token `hash`. The access token that comes with `next` must be written before: whoever renews at the same
    /// time finds and ends it.
    ///
    /// # Errors
    /// The database's or Valkey's.
    pub async fn rotate(&self, hash: &str, next: &Successor<'_>) -> Result<Rotation> {
        match &self.valkey {
            Some(valkey) => rotate_in_valkey(valkey, hash, next).await,
            None => self.rotate_in_store(hash, next).await,
        }
    }

    /// A child of the token `hash` was used: retire it. Returns the access token given with it, when it still was good.
    ///
    /// # Errors
    /// The database's or Valkey's.
    pub async fn retire(&self, hash: &str) -> Result<Option<String>> {
        if let Some(valkey) = &self.valkey {
            return Ok(run(valkey, RETIRE, vec![hash.to_owned()]).await?.pop());
        }
        let mut tx = self.cx.store.begin().await?;
        let access = refresh_tokens::retire(&mut tx, hash).await?;
        tx.commit().await?;
        Ok(access)
    }

    /// Forget all tokens of these devices.
    ///
    /// # Errors
    /// The database's or Valkey's.
    pub async fn forget_devices(&self, user_nid: i64, device_ids: &[String]) -> Result<()> {
        if device_ids.is_empty() {
            return Ok(());
        }
        if let Some(valkey) = &self.valkey {
            let mut arguments = vec![user_nid.to_string()];
            arguments.extend(device_ids.iter().cloned());
            run(valkey, FORGET, arguments).await?;
            return Ok(());
        }
        let mut tx = self.cx.store.begin().await?;
        for device_id in device_ids {
            refresh_tokens::drop_device(&mut tx, user_nid, device_id).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Forget all tokens of a user.
    ///
    /// # Errors
    /// The database's or Valkey's.
    pub async fn forget_user(&self, user_nid: i64) -> Result<()> {
        if let Some(valkey) = &self.valkey {
            run(valkey, FORGET, vec![user_nid.to_string()]).await?;
            return Ok(());
        }
        let mut tx = self.cx.store.begin().await?;
        refresh_tokens::drop_user(&mut tx, user_nid).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn rotate_in_store(&self, hash: &str, next: &Successor<'_>) -> Result<Rotation> {
        let now_ms = self.cx.clock.now_ms().cast_signed();
        let mut tx = self.cx.store.begin().await?;
        let Some(old) = refresh_tokens::hold(&mut tx, hash).await?.filter(|old| old.expires_ms > now_ms) else {
            return Ok(Rotation::Unknown);
        };
        if old.is_retired {
            let ended = refresh_tokens::drop_family(&mut tx, &old.family).await?;
            tx.commit().await?;
            return Ok(Rotation::Reused { ended });
        }
        let mut ended = refresh_tokens::drop_children(&mut tx, hash).await?;
        if let Some(parent) = &old.parent {
            ended.extend(refresh_tokens::retire(&mut tx, parent).await?);
        }
        let child = RefreshToken {
            hash: next.hash.to_owned(),
            family: old.family,
            parent: Some(old.hash),
            user_nid: old.user_nid,
            device_id: old.device_id,
            access_hash: next.access_hash.to_owned(),
            is_retired: false,
            expires_ms: now_ms.saturating_add(next.lifetime_ms),
        };
        refresh_tokens::put(&mut tx, &child).await?;
        tx.commit().await?;
        Ok(Rotation::Done { ended })
    }
}

async fn rotate_in_valkey(valkey: &Valkey, hash: &str, next: &Successor<'_>) -> Result<Rotation> {
    let arguments =
        vec![hash.to_owned(), next.hash.to_owned(), next.access_hash.to_owned(), next.lifetime_ms.to_string()];
    let mut answer = run(valkey, ROTATE, arguments).await?.into_iter();
    Ok(match answer.next().as_deref() {
        None => Rotation::Unknown,
        Some("done") => Rotation::Done { ended: answer.collect() },
        Some(_) => Rotation::Reused { ended: answer.collect() },
    })
}

/// Run a script whose first argument is the prefix of our keys.
async fn run(valkey: &Valkey, script: &'static str, arguments: Vec<String>) -> Result<Vec<String>> {
    let mut all = vec![valkey.prefix().to_owned()];
    all.extend(arguments);
    let answer: Value = valkey.client().eval(script, Vec::<String>::new(), all).await.map_err(Error::internal)?;
    match answer {
        Value::Null => Ok(Vec::new()),
        other => other.convert().map_err(Error::internal),
    }
}

// Keys, each after the prefix: `refresh:HASH` the token's fields; `refresh-family:FAMILY` the set of its hashes;
// `refresh-user:NID` family to device. Times are relative, by Valkey's own clock.

const PUT: &str = "
local p, hash, family, user, device, access, ttl = unpack(ARGV)
redis.call('HSET', p..'refresh:'..hash, 'family', family, 'user', user, 'device', device, 'access', access)
redis.call('PEXPIRE', p..'refresh:'..hash, ttl)
redis.call('SADD', p..'refresh-family:'..family, hash)
redis.call('PEXPIRE', p..'refresh-family:'..family, ttl)
redis.call('HSET', p..'refresh-user:'..user, family, device)
redis.call('PEXPIRE', p..'refresh-user:'..user, ttl)
return {}";

const OWNER: &str = "
local p, hash = unpack(ARGV)
local f = redis.call('HMGET', p..'refresh:'..hash, 'user', 'device')
if not f[1] then return {} end
return f";

const ROTATE: &str = "
local p, hash, next, access, ttl = unpack(ARGV)
local old = p..'refresh:'..hash
local f = redis.call('HMGET', old, 'family', 'user', 'device', 'retired', 'child', 'parent')
local family, user, device, retired, child, parent = unpack(f)
if not family then return {} end
local members = p..'refresh-family:'..family
if retired then
  local answer = {'reused'}
  for _, member in ipairs(redis.call('SMEMBERS', members)) do
    local given = redis.call('HGET', p..'refresh:'..member, 'access')
    if given then answer[#answer + 1] = given end
    redis.call('DEL', p..'refresh:'..member)
  end
  redis.call('DEL', members)
  redis.call('HDEL', p..'refresh-user:'..user, family)
  return answer
end
local answer = {'done'}
if child then
  local given = redis.call('HGET', p..'refresh:'..child, 'access')
  if given then answer[#answer + 1] = given end
  redis.call('DEL', p..'refresh:'..child)
  redis.call('SREM', members, child)
end
if parent then
  local before = redis.call('HMGET', p..'refresh:'..parent, 'access', 'retired')
  if before[1] and not before[2] then
    redis.call('HSET', p..'refresh:'..parent, 'retired', '1')
    answer[#answer + 1] = before[1]
  end
end
redis.call('HSET', p..'refresh:'..next, 'family', family, 'user', user, 'device', device, 'access', access, 'parent', hash)
redis.call('PEXPIRE', p..'refresh:'..next, ttl)
redis.call('HSET', old, 'child', next)
redis.call('SADD', members, next)
redis.call('PEXPIRE', members, ttl)
redis.call('HSET', p..'refresh-user:'..user, family, device)
redis.call('PEXPIRE', p..'refresh-user:'..user, ttl)
return answer";

const RETIRE: &str = "
local p, hash = unpack(ARGV)
local f = redis.call('HMGET', p..'refresh:'..hash, 'access', 'retired')
if not f[1] or f[2] then return {} end
redis.call('HSET', p..'refresh:'..hash, 'retired', '1')
return {f[1]}";

/// Arguments: user, then devices; no devices means all.
const FORGET: &str = "
local p, user = ARGV[1], ARGV[2]
local wanted = {}
for i = 3, #ARGV do wanted[ARGV[i]] = true end
local families = redis.call('HGETALL', p..'refresh-user:'..user)
for i = 1, #families, 2 do
  if #ARGV == 2 or wanted[families[i + 1]] then
    local members = p..'refresh-family:'..families[i]
    for _, member in ipairs(redis.call('SMEMBERS', members)) do redis.call('DEL', p..'refresh:'..member) end
    redis.call('DEL', members)
    redis.call('HDEL', p..'refresh-user:'..user, families[i])
  end
end
return {}";
