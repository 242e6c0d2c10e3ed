//! The declaration of an action's inputs.

/// Declares the inputs of an action: each with its default, in one place.
///
/// The result is a struct `Inputs` of what was typed, which `ghactions` reads from `INPUT_<NAME>`. Each input has a method of
/// its name that returns an [`Input`](runner_protocol::Input) to parse; its name for users has hyphens, as in `action.yml`.
/// `as` gives an input whose name is a keyword another field.
///
/// A declaration that begins with `common;` has the inputs of all actions too. One that begins with `writing;` has those
/// of the actions that write to a registry as well. `common()` and `writing()` hand them to the library.
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
            /// The inputs of all actions.
            pub(crate) fn common(&self) -> $crate::inputs::CommonInputs<'_> {
                $crate::inputs::CommonInputs {
                    working_directory: self.working_directory(),
                    template: self.template(),
                    mapping: self.mapping(),
                    images: self.images(),
                    parameters: self.parameters(),
                    region: self.region(),
                    concurrency: self.concurrency(),
                    summary: self.summary(),
                    dry_run: self.dry_run(),
                    registry_endpoints: self.registry_endpoints(),
                    reference: self.reference(),
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
            /// The inputs of the actions that write to a registry.
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
        /// The inputs as they were typed.
        #[derive(::ghactions::prelude::Actions)]
        pub(crate) struct Inputs {
            $(#[input(required = false $(, name = $typed)?)] $name: String,)*
        }

        impl Inputs {
            /// Every input with its default.
            pub(crate) const TABLE: &'static [(&'static str, &'static str)] =
                &[$(($crate::inputs!(@name $name $($typed)?), $default)),*];

            /// Reads all inputs. One that is unset or empty has its default.
            pub(crate) fn read() -> ::anyhow::Result<Self> {
                let mut inputs = <Self as ::ghactions::prelude::ActionTrait>::init()?;
                $(if inputs.$name.trim().is_empty() { inputs.$name = $default.to_owned(); })*
                Ok(inputs)
            }

            $($crate::inputs!(@input $name, $crate::inputs!(@name $name $($typed)?));)*
        }
    };
    (@input $name:ident, $field:expr) => {
        // An input that only an action's shell or a later step reads has no reader here.
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

/// Turns the underscores of a field's name into hyphens.
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

/// The text of ASCII bytes.
#[doc(hidden)]
pub const fn ascii(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("a name is ASCII"),
    }
}
