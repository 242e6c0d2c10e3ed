/// Declares the inputs of an action: a struct of strings, read by `ghactions` from `INPUT_<NAME>`, and the table of
/// their defaults. What they mean is parsed from [`Input`]s.
///
/// What begins with `common;` has the inputs of all actions too, with `writing;` those of the actions that write to a
/// registry as well: `common()` and `writing()` hand them to the library.
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
            pub(crate) fn common(&self) -> $crate::project::CommonInputs<'_> {
                $crate::project::CommonInputs {
                    working_directory: $crate::runner::Input::new("working-directory", &self.working_directory),
                    template: $crate::runner::Input::new("template", &self.template),
                    mapping: $crate::runner::Input::new("mapping", &self.mapping),
                    images: $crate::runner::Input::new("images", &self.images),
                    parameters: $crate::runner::Input::new("parameters", &self.parameters),
                    region: $crate::runner::Input::new("region", &self.region),
                    concurrency: $crate::runner::Input::new("concurrency", &self.concurrency),
                    summary: $crate::runner::Input::new("summary", &self.summary),
                    dry_run: $crate::runner::Input::new("dry-run", &self.dry_run),
                    registry_endpoints: $crate::runner::Input::new("registry-endpoints", &self.registry_endpoints),
                    reference: $crate::runner::Input::new("reference", &self.reference),
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
            pub(crate) fn writing(&self) -> $crate::project::WritingInputs<'_> {
                $crate::project::WritingInputs {
                    extra_tags: $crate::runner::Input::new("extra-tags", &self.extra_tags),
                    create_repositories: $crate::runner::Input::new("create-repositories", &self.create_repositories),
                    repository_settings: $crate::runner::Input::new("repository-settings", &self.repository_settings),
                    evidence: $crate::runner::Input::new("evidence", &self.evidence),
                    on_conflict: $crate::runner::Input::new("on-conflict", &self.on_conflict),
                    record: $crate::runner::Input::new("record", &self.record),
                    allowed_account_ids: $crate::runner::Input::new("allowed-account-ids", &self.allowed_account_ids),
                }
            }
        }
    };
    ($($name:ident $(as $typed:tt)? = $default:literal),* $(,)?) => {
        /// What was typed into each input.
        #[derive(::ghactions::prelude::Actions)]
        pub(crate) struct Inputs {
            $(#[input(required = false $(, name = $typed)?)] $name: String,)*
        }

        impl Inputs {
            /// Every input with its default.
            pub(crate) const TABLE: &'static [(&'static str, &'static str)] =
                &[$(($crate::inputs!(@name $name $($typed)?), $default)),*];

            /// Reads all of them; one that is unset or empty has its default.
            pub(crate) fn read() -> ::anyhow::Result<Self> {
                let mut inputs = <Self as ::ghactions::prelude::ActionTrait>::init()?;
                $(if inputs.$name.trim().is_empty() { inputs.$name = $default.to_owned(); })*
                Ok(inputs)
            }
        }
    };
    (@name $name:ident) => { stringify!($name) };
    (@name $name:ident $typed:tt) => { $typed };
}
