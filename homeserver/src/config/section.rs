//! A section of the file: its keys with their documentation, defaults and types, declared once with [`section!`].

use toml::{Table, Value};

use super::value::Setting;

/// What is known of a key without a configuration.
#[derive(Debug, Clone)]
pub struct Key {
    /// As written in the file.
    pub name: &'static str,
    /// Lines of its documentation.
    pub doc: &'static [&'static str],
    /// Its default as TOML, or a sample when there is no default.
    pub shown: String,
    /// A word nobody may see: `NAME_file` is a key too.
    pub is_secret: bool,
    /// Reads a text of the environment or a flag.
    pub value_of: fn(&str) -> Value,
}

/// A table of the file.
pub trait Section: Default {
    /// As written in brackets.
    const NAME: &'static str;
    /// Lines of its documentation.
    const DOC: &'static [&'static str];

    /// Its keys, in order.
    fn keys() -> Vec<Key>;

    /// Take the keys out of `table`; what is wrong is added to `faults`, and the default stands in for it.
    fn read(table: &Table, faults: &mut Vec<String>) -> Self;
}

/// One key of a section's table.
pub(crate) fn take<T: Setting>(section: &str, table: &Table, key: &str, default: T, faults: &mut Vec<String>) -> T {
    let Some(value) = table.get(key) else { return default };
    T::read(value).unwrap_or_else(|expected| {
        faults.push(format!("{section}.{key}: expected {expected}"));
        default
    })
}

/// Declares a section: `name "in the file" { /// doc  key: Type = default => "sample when there is no default", … }`.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        $section:ident $name:literal {
            $($(#[doc = $doc:literal])+ $key:ident : $type:ty = $default:expr $(=> $sample:literal $secret:ident)?),* $(,)?
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $section { $($(#[doc = $doc])+ pub $key: $type),* }

        impl Default for $section {
            fn default() -> Self {
                Self { $($key: $default),* }
            }
        }

        impl $crate::config::section::Section for $section {
            const NAME: &'static str = $name;
            const DOC: &'static [&'static str] = &[$($section_doc),+];

            fn keys() -> Vec<$crate::config::section::Key> {
                let default = Self::default();
                vec![$($crate::config::section::Key {
                    name: stringify!($key),
                    doc: &[$($doc),+],
                    shown: $crate::config::value::Setting::show(&default.$key)
                        $(.or(Some($sample.to_owned())))?.unwrap_or_default(),
                    is_secret: section!(@is_secret $($secret)?),
                    value_of: <$type as $crate::config::value::Setting>::value_of,
                }),*]
            }

            fn read(table: &toml::Table, faults: &mut Vec<String>) -> Self {
                let default = Self::default();
                Self { $($key: $crate::config::section::take($name, table, stringify!($key), default.$key, faults)),* }
            }
        }
    };
    (@is_secret secret) => { true };
    (@is_secret $($other:ident)?) => { false };
}
pub(crate) use section;
