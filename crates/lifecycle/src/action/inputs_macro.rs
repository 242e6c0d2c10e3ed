//! The macro that declares the inputs of an action.

/// Declares the inputs of an action with their defaults.
///
/// The macro defines a struct `Inputs` that holds the text of each input as `ghactions` reads it from `INPUT_<NAME>`.
/// Each input has a method of its name that returns an [`Input`](runner_protocol::Input) to parse. The input's name for
/// users has hyphens, as in `action.yml`. If the name is a Rust keyword, `field as "name"` declares it.
///
/// A declaration that begins with `common;` also has the inputs that all actions share. One that begins with `writing;`
/// also has those of the actions that write to a registry. The methods `common()` and `writing()` return these groups.
#[macro_export]
macro_rules! inputs {
    (common; $($own:tt)*) => {
        $crate::inputs! {
            working_directory = ".",
            template = "",
            mapping = "ImageBuildConfiguration",
            images = "",
            parameters = "",
            region = "",
            concurrency = "",
            summary = "true",
            dry_run = "false",
            github_token = "",
            registry = "",
            registry_parameter = "",
            registry_endpoints = "",
            reference = "",
            version = "",
            $($own)*
        }

        impl Inputs {
            /// Returns the inputs that all actions share.
            pub(crate) fn common(&self) -> $crate::inputs::CommonInputs<'_> {
                $crate::inputs::CommonInputs {
                    project: $crate::naming::ProjectInputs {
                        working_directory: self.working_directory(),
                        template: self.template(),
                        mapping: self.mapping(),
                        images: self.images(),
                        parameters: self.parameters(),
                        reference: self.reference(),
                    },
                    region: self.region(),
                    concurrency: self.concurrency(),
                    summary: self.summary(),
                    dry_run: self.dry_run(),
                    registry_endpoints: self.registry_endpoints(),
                }
            }
        }
    };
    (writing; $($own:tt)*) => {
        $crate::inputs! {
            common;
            extra_tags = "",
            create_repositories = "never",
            repository_settings = "",
            evidence = "required",
            on_conflict = "fail",
            record = "true",
            allowed_account_ids = "",
            $($own)*
        }

        impl Inputs {
            /// Returns the inputs of the actions that write to a registry.
            pub(crate) fn writing(&self) -> $crate::inputs::WritingInputs<'_> {
                $crate::inputs::WritingInputs {
                    extra_tags: self.extra_tags(),
                    create_repositories: self.create_repositories(),
                    repository_settings: self.repository_settings(),
                    evidence: self.evidence(),
                    on_conflict: self.on_conflict(),
                    record: self.record(),
                    allowed_account_ids: self.allowed_account_ids(),
                }
            }
        }
    };
    ($($name:ident $(as $typed:tt)? = $default:literal),* $(,)?) => {
        /// The text of each input.
        #[derive(::ghactions::prelude::Actions)]
        pub(crate) struct Inputs {
            $(#[input(required = false $(, name = $typed)?)] $name: String,)*
        }

        impl Inputs {
            /// All inputs with their defaults.
            pub(crate) const TABLE: &'static [(&'static str, &'static str)] =
                &[$(($crate::inputs!(@name $name $($typed)?), $default)),*];

            /// Reads all inputs. Those of the command line, which are among the variables, take precedence over those of
            /// the environment. One that is unset or empty has its default.
            pub(crate) fn read(variables: &::runner_protocol::Variables) -> ::anyhow::Result<Self> {
                let mut inputs = <Self as ::ghactions::prelude::ActionTrait>::init()?;
                $(
                    let input = variables.input($crate::inputs!(@name $name $($typed)?));
                    if let Some(input) = input { inputs.$name = input.to_owned(); }
                    if inputs.$name.trim().is_empty() { inputs.$name = $default.to_owned(); }
                )*
                Ok(inputs)
            }

            $($crate::inputs!(@input $name, $crate::inputs!(@name $name $($typed)?));)*
        }
    };
    (@input $name:ident, $field:expr) => {
        // Some inputs are read by the action file's shell step or by a later step only.
        #[allow(dead_code, reason = "every input has a method, and not every action reads each of the common ones")]
        pub(crate) fn $name(&self) -> ::runner_protocol::Input<'_> {
            const FIELD: &str = $field;
            const BYTES: [u8; FIELD.len()] = $crate::action::hyphenated(FIELD);
            const NAME: &str = $crate::action::ascii(&BYTES);
            ::runner_protocol::Input::new(NAME, &self.$name)
        }
    };
    (@name $name:ident) => { stringify!($name) };
    (@name $name:ident $typed:tt) => { $typed };
}

/// Replaces the underscores of a field's name with hyphens.
#[doc(hidden)]
pub const fn hyphenated<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        bytes[at] = if name.as_bytes()[at] == b'_' { b'-' } else { name.as_bytes()[at] };
        at += 1;
    }
    bytes
}

/// Returns ASCII bytes as a string.
#[doc(hidden)]
pub const fn ascii(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("a name is ASCII"),
    }
}
