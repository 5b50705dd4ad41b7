//! How a setting's value is written: in the file (TOML), in the environment and in flags (plain text), and in the example.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use toml::Value;

/// A type that a key of the configuration may have.
pub trait Setting: Sized {
    /// From the file. The error completes "expected …".
    fn read(value: &Value) -> Result<Self, String>;

    /// What a text of the environment or a flag would be in the file.
    fn value_of(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    /// As TOML, for the example; `None` when nothing is set.
    fn show(&self) -> Option<String>;
}

/// A word nobody may see. Read from the file, the environment, or a file of its own (`KEY_file`).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text; never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A number of bytes, written `"50 MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn string(value: &Value, expected: &str) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| expected.to_owned())
}

impl Setting for String {
    fn read(value: &Value) -> Result<Self, String> {
        string(value, "a text in quotes")
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Setting for Secret {
    fn read(value: &Value) -> Result<Self, String> {
        string(value, "a text in quotes").map(Self)
    }

    fn show(&self) -> Option<String> {
        None
    }
}

impl Setting for PathBuf {
    fn read(value: &Value) -> Result<Self, String> {
        string(value, "a path in quotes").map(Into::into)
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.display().to_string()))
    }
}

impl Setting for bool {
    fn read(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| "true or false".to_owned())
    }

    fn value_of(text: &str) -> Value {
        text.parse().map_or_else(|_| Value::String(text.to_owned()), Value::Boolean)
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn read(value: &Value) -> Result<Self, String> {
                let expected = || format!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX);
                value.as_integer().and_then(|number| number.try_into().ok()).ok_or_else(expected)
            }

            fn value_of(text: &str) -> Value {
                text.parse().map_or_else(|_| Value::String(text.to_owned()), Value::Integer)
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )*};
}
number!(u16, u32);

impl Setting for f64 {
    fn read(value: &Value) -> Result<Self, String> {
        #[expect(clippy::cast_precision_loss, reason = "rates are small numbers")]
        let number = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
        number.filter(|n| n.is_finite() && *n >= 0.0).ok_or_else(|| "a number, not negative".to_owned())
    }

    fn value_of(text: &str) -> Value {
        text.parse().map_or_else(|_| Value::String(text.to_owned()), Value::Float)
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for SocketAddr {
    fn read(value: &Value) -> Result<Self, String> {
        let expected = "an address and port such as \"127.0.0.1:8008\" or \"[::]:8008\"";
        string(value, expected)?.parse().map_err(|_| expected.to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Setting for std::net::IpAddr {
    fn read(value: &Value) -> Result<Self, String> {
        let expected = "an IP address such as \"192.0.2.1\"";
        string(value, expected)?.parse().map_err(|_| expected.to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Setting for Duration {
    fn read(value: &Value) -> Result<Self, String> {
        let expected = "a time such as \"500ms\", \"30s\", \"15m\", \"12h\" or \"7d\"";
        let text = string(value, expected)?;
        let (number, ms) =
            split_unit(&text, &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)])
                .ok_or(expected)?;
        number.checked_mul(ms).map(Self::from_millis).ok_or_else(|| expected.to_owned())
    }

    fn show(&self) -> Option<String> {
        let ms = self.as_millis();
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
        let (unit, size) =
            units.into_iter().find(|(_, size)| ms > 0 && ms.is_multiple_of(*size)).unwrap_or(("s", 1000));
        Some(format!("\"{}{unit}\"", ms / size))
    }
}

impl Setting for Size {
    fn read(value: &Value) -> Result<Self, String> {
        let expected = "a size such as \"512 KiB\", \"50 MiB\" or \"1 GiB\"";
        let text = string(value, expected)?;
        let (number, bytes) =
            split_unit(&text, &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]).ok_or(expected)?;
        number.checked_mul(bytes).map(Self).ok_or_else(|| expected.to_owned())
    }

    fn show(&self) -> Option<String> {
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
        let (unit, size) =
            units.into_iter().find(|(_, size)| self.0 > 0 && self.0.is_multiple_of(*size)).unwrap_or(("B", 1));
        Some(format!("\"{} {unit}\"", self.0 / size))
    }
}

/// `"15 m"` → (15, what `m` stands for).
fn split_unit(text: &str, units: &[(&str, u64)]) -> Option<(u64, u64)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let unit = text[end..].trim();
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    Some((text[..end].parse().ok()?, *size))
}

impl<T: Setting> Setting for Option<T> {
    fn read(value: &Value) -> Result<Self, String> {
        T::read(value).map(Some)
    }

    fn value_of(text: &str) -> Value {
        T::value_of(text)
    }

    fn show(&self) -> Option<String> {
        self.as_ref()?.show()
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn read(value: &Value) -> Result<Self, String> {
        let list = value.as_array().ok_or_else(|| "a list in brackets".to_owned())?;
        list.iter().map(|item| T::read(item).map_err(|expected| format!("a list; each item: {expected}"))).collect()
    }

    /// Items apart by commas.
    fn value_of(text: &str) -> Value {
        Value::Array(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::value_of).collect())
    }

    fn show(&self) -> Option<String> {
        let items: Vec<String> = self.iter().filter_map(T::show).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// An address to listen on, or `"off"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nobody listens.
    Off,
    /// Here.
    On(SocketAddr),
}

impl Setting for Listen {
    fn read(value: &Value) -> Result<Self, String> {
        if value.as_str() == Some("off") {
            return Ok(Self::Off);
        }
        SocketAddr::read(value).map(Self::On).map_err(|expected| format!("{expected}, or \"off\""))
    }

    fn show(&self) -> Option<String> {
        match self {
            Self::Off => Some("\"off\"".to_owned()),
            Self::On(address) => address.show(),
        }
    }
}

/// Declares an enum whose values are words.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant),* }

        impl $crate::config::value::Setting for $name {
            fn read(value: &toml::Value) -> Result<Self, String> {
                match value.as_str() {
                    $(Some($word) => Ok(Self::$variant),)*
                    _ => Err(concat!("one of", $(" \"", $word, "\""),*).to_owned()),
                }
            }

            fn show(&self) -> Option<String> {
                match self { $(Self::$variant => Some(concat!("\"", $word, "\"").to_owned())),* }
            }
        }
    };
}
pub(crate) use choice;
