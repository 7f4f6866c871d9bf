//! The declaration of a section and its keys: `section!`.

/// Declares a section: its struct, its keys, and how they are read.
///
/// ```text
/// section! {
///     /// What the section is about.
///     pub struct Listen = "listen" {
///         /// What the key changes, and its unit.
///         address: SocketAddr { env: "GENKAN_LISTEN", alias: "PDS_PORT" by on_every_interface, default: "127.0.0.1:2583" },
///         /// …
///         workers: usize { env: "GENKAN_WORKERS", derived: "one per core" => Some(cores()) },
///     }
/// }
/// ```
///
/// A `derived` default may use the fields above it, each as an `Option`, which is `None` when the
/// field could not be read. A key without a default is absent where its type allows that. Otherwise
/// it is required, and has an `example`. `file` lets `<env>_FILE` name a file of lines; secrets can
/// always be read from a file.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        pub struct $Section:ident = $section:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $Type:ty {
                    env: $env:literal
                    $(, alias: $alias:literal $(by $translate:path)?)?
                    $(, default: $default:literal)?
                    $(, derived: $words:literal => $derive:expr)?
                    $(, example: $example:literal)?
                    $(, file: $from_file:literal)?
                    $(,)?
                }
            ),+ $(,)?
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Clone, Debug)]
        pub struct $Section {
            $( $(#[doc = $doc])+ pub $field: $Type, )+
        }

        impl $Section {
            const KEYS: &'static [$crate::config::key::Key] = &[$(
                $crate::config::key::Key {
                    section: $section,
                    name: stringify!($field),
                    doc: &[$($doc),+],
                    form: <$Type as $crate::config::value::Setting>::FORM,
                    env: $env,
                    alias: $crate::config::section::section!(@alias $($alias $(by $translate)?)?),
                    default: $crate::config::section::section!(
                        @preset $(value $default)? $(derived $words)? $(required $example)?
                    ),
                    secret: <$Type as $crate::config::value::Setting>::SECRET,
                    list: <$Type as $crate::config::value::Setting>::LIST,
                    from_file: <$Type as $crate::config::value::Setting>::SECRET $(|| $from_file)?,
                }
            ),+];

            pub(super) fn described()
            -> (&'static str, &'static [&'static str], &'static [$crate::config::key::Key]) {
                ($section, &[$($section_doc),+], Self::KEYS)
            }

            /// Reads the section. `None` when a key could not be read: the reader has the problem.
            pub(super) fn read(reader: &mut $crate::config::reader::Reader<'_>) -> Option<Self> {
                let mut keys = Self::KEYS.iter();
                $(
                    let key = keys.next().expect("there is a key for each field");
                    let $field: Option<$Type> = $crate::config::section::section!(@read reader key $($derive)?);
                )+
                let section = Self { $($field: $field?),+ };
                let mut found = $crate::config::problem::Findings::default();
                section.check(&mut found);
                reader.add(found);
                Some(section)
            }
        }
    };
    (@alias) => { None };
    (@alias $alias:literal) => {
        Some($crate::config::key::Alias { name: $alias, translate: str::to_owned })
    };
    (@alias $alias:literal by $translate:path) => {
        Some($crate::config::key::Alias { name: $alias, translate: $translate })
    };
    (@preset) => { $crate::config::key::Preset::Absent };
    (@preset value $text:literal) => { $crate::config::key::Preset::Value($text) };
    (@preset derived $text:literal) => { $crate::config::key::Preset::Derived($text) };
    (@preset required $text:literal) => { $crate::config::key::Preset::Required($text) };
    (@read $reader:ident $key:ident) => { $reader.read($key) };
    (@read $reader:ident $key:ident $derive:expr) => { $reader.read_or($key, || $derive) };
}
pub(super) use section;
