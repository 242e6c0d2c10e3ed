//! The base images that a Dockerfile names, for one platform.

use std::collections::{BTreeMap, BTreeSet};

use lifecycle::{ActionError, SourceLocation};
use oci::Platform;

use super::Dockerfile;
use super::expansion::{DockerfileVariables, expand};
use super::substitutions::canonical;
use super::syntax::{Flag, Instruction, SourceText, quoted_words};

/// The build argument that overrides the directive `syntax`.
pub(crate) const SYNTAX_ARGUMENT: &str = "BUILDKIT_SYNTAX";

/// The base images and stages of a build, for one platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    /// All mentions of base images that the build needs.
    pub(crate) bases: Vec<BaseImage>,
    /// The base image of the target's stage; `None` if it is `scratch`.
    pub(crate) base: Option<BaseImage>,
    /// The numbers of the stages that the build needs.
    pub(crate) needed: BTreeSet<usize>,
    /// The target's stage after the stages that it is based on.
    pub(crate) stage_chain: Vec<usize>,
}

/// The mention of a base image in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseImage {
    /// The reference, with variables expanded.
    pub(crate) reference: String,
    /// The reference with registry and tag: `docker.io/library/busybox:latest`.
    pub(crate) name: String,
    /// The location of the mention.
    pub(crate) source_location: SourceLocation,
    /// The use of the image.
    pub(crate) role: BaseRole,
    /// The required platform; `None` for a frontend, whose platform the builder chooses.
    pub(crate) platform: Option<Platform>,
    /// The text of the mention.
    pub(super) written: SourceText,
    /// The options of the mount that mentions it.
    pub(super) mount: Option<Vec<(String, Option<String>)>>,
}

impl BaseImage {
    /// Returns the same mention with another image.
    pub(crate) fn replaced_by(self, image: &str) -> Self {
        let name = canonical(image).unwrap_or_else(|| image.to_owned());
        Self { reference: image.to_owned(), name, ..self }
    }
}

/// The use of a base image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BaseRole {
    /// A stage is based on it: `FROM`.
    Stage,
    /// Files are copied or mounted from it: `COPY --from`, `RUN --mount=from=`.
    Files,
    /// It reads the Dockerfile: `# syntax=`.
    Frontend,
}

/// A build stage.
struct BuildStage {
    /// In lower case.
    name: Option<String>,
    parent: Parent,
    /// Earlier stages that files are copied or mounted from.
    copies_from: BTreeSet<usize>,
    variables: DockerfileVariables,
    /// Images that files are copied or mounted from.
    images: Vec<BaseImage>,
}

enum Parent {
    Nothing,
    Stage(usize),
    Image(Box<BaseImage>),
}

impl Dockerfile {
    /// Returns the base images that a build for a platform needs.
    ///
    /// # Errors
    /// If a name cannot be evaluated.
    pub(crate) fn sources(
        &self,
        arguments: &BTreeMap<String, String>,
        target: Option<&str>,
        platform: &Platform,
    ) -> Result<Sources, ActionError> {
        let mut evaluation = Evaluation::new(self, arguments, platform);
        for instruction in self.instructions() {
            evaluation.evaluate(instruction)?;
        }
        let mut sources = evaluation.sources(target);
        sources.bases.extend(self.frontend(arguments)?);
        Ok(sources)
    }

    /// Returns the frontend, the image that reads the Dockerfile, if one is named.
    fn frontend(&self, arguments: &BTreeMap<String, String>) -> Result<Option<BaseImage>, ActionError> {
        let directive = self.document.syntax.as_ref();
        let argument = arguments.get(SYNTAX_ARGUMENT).and_then(|value| value.split_whitespace().next());
        let image = argument.map(str::to_owned).or_else(|| Some(directive?.image.clone()));
        let Some(reference) = image else { return Ok(None) };
        let source_location = self.source_location(directive.map_or(0, |directive| directive.offset));
        let name = canonical_name(&reference, &source_location)?;
        let written = SourceText::default();
        Ok(Some(BaseImage {
            reference,
            name,
            source_location,
            role: BaseRole::Frontend,
            platform: None,
            written,
            mount: None,
        }))
    }
}

/// The evaluation of a Dockerfile, instruction by instruction.
struct Evaluation<'d> {
    dockerfile: &'d Dockerfile,
    arguments: &'d BTreeMap<String, String>,
    platform: &'d Platform,
    /// Variables of the builder and of `ARG` before the first `FROM`.
    globals: DockerfileVariables,
    /// Variables of the builder.
    predefined: DockerfileVariables,
    stages: Vec<BuildStage>,
}

impl<'d> Evaluation<'d> {
    fn new(dockerfile: &'d Dockerfile, arguments: &'d BTreeMap<String, String>, platform: &'d Platform) -> Self {
        let mut predefined = DockerfileVariables::new();
        for (kind, platform) in [("BUILD", &Platform::host()), ("TARGET", platform)] {
            predefined.insert(format!("{kind}PLATFORM"), platform.to_string());
            predefined.insert(format!("{kind}OS"), platform.os.clone());
            predefined.insert(format!("{kind}ARCH"), platform.architecture.clone());
            predefined.insert(format!("{kind}VARIANT"), platform.variant.clone().unwrap_or_default());
        }
        let globals = predefined.clone();
        Self { dockerfile, arguments, platform, globals, predefined, stages: Vec::new() }
    }

    fn evaluate(&mut self, instruction: &Instruction) -> Result<(), ActionError> {
        match instruction.keyword {
            "FROM" => self.from(instruction),
            "ARG" => self.arg(instruction),
            _ if self.stages.is_empty() => {
                let source_location = self.dockerfile.source_location(instruction.offset);
                let message = format!("`{}` stands before the first FROM", instruction.keyword);
                Err(ActionError::usage_error(message).at(source_location))
            }
            "ENV" => self.env(instruction),
            "COPY" => self.copy(instruction),
            "RUN" => self.run(instruction),
            _ => Ok(()),
        }
    }

    fn arg(&mut self, instruction: &Instruction) -> Result<(), ActionError> {
        for word in quoted_words(&instruction.arguments.text, self.dockerfile.document.escape) {
            let (name, default) = word.split_once('=').map_or((word.as_str(), None), |(n, d)| (n, Some(d)));
            let known = self.stages.last().map_or(&self.globals, |stage| &stage.variables);
            let given = self.arguments.get(name).cloned();
            let inherited = || {
                let global = self.globals.get(name).filter(|_| !self.stages.is_empty());
                global.or_else(|| self.predefined.get(name)).cloned()
            };
            let value = match (given, default) {
                (Some(given), _) => Some(given),
                // The builder refuses a default that cannot be evaluated, unless an image's name needs it.
                (None, Some(default)) => expand(default, self.dockerfile.document.escape, known).ok(),
                (None, None) => inherited(),
            };
            let variables = self.stages.last_mut().map_or(&mut self.globals, |stage| &mut stage.variables);
            match value {
                Some(value) => variables.insert(name.to_owned(), value),
                None => None,
            };
        }
        Ok(())
    }

    fn env(&mut self, instruction: &Instruction) -> Result<(), ActionError> {
        let escape = self.dockerfile.document.escape;
        let text = &instruction.arguments.text;
        let Some(stage) = self.stages.last_mut() else { return Ok(()) };
        let words = quoted_words(text, escape);
        let pairs: Vec<(String, String)> = match words.first() {
            Some(first) if !first.contains('=') => {
                text.split_once(char::is_whitespace).into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
            }
            _ => words.iter().filter_map(|w| w.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        };
        // All values of an instruction are expanded with the variables before it.
        let before = stage.variables.clone();
        for (name, value) in pairs {
            if let Ok(value) = expand(&value, escape, &before) {
                stage.variables.insert(name, value);
            }
        }
        Ok(())
    }

    fn from(&mut self, instruction: &Instruction) -> Result<(), ActionError> {
        let words = instruction.arguments.words();
        let at = |offset: usize| self.dockerfile.source_location(offset);
        let (written, name) = match words.as_slice() {
            [image] => (image, None),
            [image, by, name] if by.text.eq_ignore_ascii_case("as") => (image, Some(name.text.to_ascii_lowercase())),
            _ => {
                return Err(
                    ActionError::usage_error("FROM takes an image, or an image AS a name").at(at(instruction.offset))
                );
            }
        };
        let source_location = at(written.span().map_or(instruction.offset, |span| span.start));
        let reference = self.expanded(&written.text, &self.globals, &source_location)?;
        if reference.is_empty() {
            let problem = ActionError::usage_error(format!("the name of the base image is empty: `{}`", written.text));
            return Err(problem
                .at(source_location)
                .hint("give the build argument a default, or a value in `buildArgs`"));
        }
        let platform = match instruction.options.iter().find(|option| option.name == "platform") {
            None => self.platform.clone(),
            Some(option) => {
                let value = self.expanded(&option.written.text, &self.globals, &at(option.offset))?;
                let source_location = at(option.offset);
                let platform = value.parse::<Platform>();
                platform.map_err(|error| {
                    ActionError::usage_error("FROM has no platform").because(error).at(source_location)
                })?
            }
        };
        let (parent, variables) = match self.stage_named(&reference) {
            Some(number) => (Parent::Stage(number), self.stages[number].variables.clone()),
            None if reference == "scratch" => (Parent::Nothing, DockerfileVariables::new()),
            None => {
                let base = self.base(reference, source_location, BaseRole::Stage, platform, written.clone(), None)?;
                (Parent::Image(Box::new(base)), DockerfileVariables::new())
            }
        };
        self.stages.push(BuildStage { name, parent, copies_from: BTreeSet::new(), variables, images: Vec::new() });
        Ok(())
    }

    fn copy(&mut self, instruction: &Instruction) -> Result<(), ActionError> {
        match instruction.options.iter().find(|option| option.name == "from" && !option.value.is_empty()) {
            Some(option) => self.add_file_source(option, &option.written.text, None),
            None => Ok(()),
        }
    }

    fn run(&mut self, instruction: &Instruction) -> Result<(), ActionError> {
        for option in instruction.options.iter().filter(|option| option.name == "mount") {
            let options = mount_options(&option.value);
            let from = options.iter().find(|(name, _)| name == "from").and_then(|(_, value)| value.clone());
            if let Some(from) = from.filter(|from| !from.is_empty()) {
                self.add_file_source(option, &from, Some(options))?;
            }
        }
        Ok(())
    }

    /// Records that files are copied or mounted from a stage or an image.
    fn add_file_source(
        &mut self,
        option: &Flag,
        from: &str,
        mount: Option<Vec<(String, Option<String>)>>,
    ) -> Result<(), ActionError> {
        let span = option.written.span();
        let source_location = self.dockerfile.source_location(span.map_or(option.offset, |span| span.start));
        let Some(current) = self.stages.len().checked_sub(1) else { return Ok(()) };
        let from = self.expanded(from, &self.stages[current].variables, &source_location)?;
        let number = from.parse::<usize>().ok().or_else(|| self.stage_named(&from));
        match number {
            Some(number) => {
                self.stages[current].copies_from.insert(number);
            }
            None if from == "scratch" => {}
            None => {
                // Files are copied from the image of the target's platform, whatever the stage's platform is.
                let platform = self.platform.clone();
                let base =
                    self.base(from, source_location, BaseRole::Files, platform, option.written.clone(), mount)?;
                self.stages[current].images.push(base);
            }
        }
        Ok(())
    }

    fn base(
        &self,
        reference: String,
        source_location: SourceLocation,
        role: BaseRole,
        platform: Platform,
        written: SourceText,
        mount: Option<Vec<(String, Option<String>)>>,
    ) -> Result<BaseImage, ActionError> {
        let name = canonical_name(&reference, &source_location)?;
        Ok(BaseImage { reference, name, source_location, role, platform: Some(platform), written, mount })
    }

    fn expanded(
        &self,
        word: &str,
        variables: &DockerfileVariables,
        source_location: &SourceLocation,
    ) -> Result<String, ActionError> {
        expand(word, self.dockerfile.document.escape, variables).map_err(|error| {
            ActionError::usage_error(format!("`{word}` cannot be evaluated")).because(error).at(source_location.clone())
        })
    }

    /// Returns the number of the last stage of a name.
    fn stage_named(&self, name: &str) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        self.stages.iter().rposition(|stage| stage.name.as_deref() == Some(&name))
    }

    /// Returns the base images and stages that the target needs.
    fn sources(self, target: Option<&str>) -> Sources {
        let number =
            |name: &str| self.stage_named(name).or_else(|| name.parse().ok().filter(|n| *n < self.stages.len()));
        let last = self.stages.len().checked_sub(1);
        // The builder refuses a target that does not exist. Until then, all stages count.
        let (first, mut waiting) = match target {
            None => (last, last.into_iter().collect()),
            Some(name) => match number(name) {
                Some(number) => (Some(number), vec![number]),
                None => (None, (0..self.stages.len()).collect::<Vec<_>>()),
            },
        };
        let mut sources = Sources::default();
        while let Some(number) = waiting.pop() {
            let Some(stage) = self.stages.get(number) else { continue };
            if sources.needed.insert(number) {
                waiting.extend(&stage.copies_from);
                if let Parent::Stage(parent) = stage.parent {
                    waiting.push(parent);
                }
            }
        }
        for number in &sources.needed {
            let stage = &self.stages[*number];
            if let Parent::Image(base) = &stage.parent {
                sources.bases.push(BaseImage::clone(base));
            }
            sources.bases.extend(stage.images.iter().cloned());
        }
        let mut next = first;
        while let Some(number) = next {
            sources.stage_chain.insert(0, number);
            next = match &self.stages[number].parent {
                Parent::Stage(parent) => Some(*parent),
                Parent::Image(base) => {
                    sources.base = Some(BaseImage::clone(base));
                    None
                }
                Parent::Nothing => None,
            };
        }
        sources
    }
}

fn canonical_name(reference: &str, source_location: &SourceLocation) -> Result<String, ActionError> {
    canonical(reference).ok_or_else(|| {
        let shown: String = reference.chars().take(200).collect();
        ActionError::usage_error(format!("`{shown}` is not an image reference")).at(source_location.clone())
    })
}

/// Parses the options of a mount, which are a line of CSV.
pub(crate) fn mount_options(value: &str) -> Vec<(String, Option<String>)> {
    let (mut fields, mut field, mut is_quoted) = (Vec::new(), String::new(), false);
    for c in value.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    let pair = |field: String| match field.split_once('=') {
        Some((name, value)) => (name.trim().to_ascii_lowercase(), Some(value.to_owned())),
        None => (field.trim().to_ascii_lowercase(), None),
    };
    fields.into_iter().map(pair).collect()
}

/// Formats the options of a mount, with another image and always with a type, because old versions of buildah misread a
/// mount without one.
pub(super) fn format_mount(options: &[(String, Option<String>)], image: Option<&str>) -> String {
    let kind = ("type".to_owned(), Some("bind".to_owned()));
    let kind = (!options.iter().any(|(name, _)| name == "type")).then_some(&kind);
    let options = kind.into_iter().chain(options);
    let field = |(name, value): &(String, Option<String>)| match (value, image) {
        (_, Some(image)) if name == "from" => format!("from={image}"),
        (Some(value), _) => format!("{name}={value}"),
        (None, _) => name.clone(),
    };
    let csv: Vec<String> =
        options.map(field).map(|field| if field.contains(',') { format!("\"{field}\"") } else { field }).collect();
    let csv = csv.join(",");
    // Only the quote and the escape character are special within single quotes.
    if csv.contains([' ', '\t', '"', '\'']) { format!("'{csv}'") } else { csv }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn dockerfile(text: &str) -> Dockerfile {
        Dockerfile::parse(text.to_owned(), Path::new("Dockerfile")).unwrap()
    }

    fn read(text: &str, args: &[(&str, &str)], target: Option<&str>) -> Sources {
        let args = args.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        dockerfile(text).sources(&args, target, &Platform::linux("s390x")).unwrap()
    }

    fn references(text: &str, args: &[(&str, &str)]) -> Vec<String> {
        let shown = |base: BaseImage| {
            let platform = base.platform.map(|platform| platform.architecture).unwrap_or_default();
            format!("{} {} {platform}", base.source_location.to_string().trim_start_matches("Dockerfile:"), base.name)
        };
        read(text, args, None).bases.into_iter().map(shown).collect()
    }

    #[test]
    fn all_mentions_of_images_are_found() {
        let host = Platform::host().architecture;
        let text = "# syntax=docker/dockerfile:1\nARG ACCOUNT=1\nARG TAG=\"1.37\"\n# x\n\
                    FROM --platform=linux/amd64 ${ACCOUNT}.dkr/busybox:$TAG AS Base\n\
                    FROM --platform=$BUILDPLATFORM \"go\":1 AS tools\nARG TAG\nENV T=$TAG\n\
                    COPY --from=index.docker.io/team/x:$T /b /b\nCOPY --from=${T:+other/y} /b /b\n\
                    FROM base AS next\nCOPY --from=base /a /a\nCOPY --from=1 /a /a\n\
                    RUN --mount=type=cache,target=/c --mount=\"type=bind,from=ghcr.io/x/uv:0.9,source=/uv\" true\n\
                    FROM docker.io/bu\\\n# c\nsybox\nRUN --mount=from=next,target=/n --mount=from=tools true <<E\nFROM heredoc\nE\n\
                    ONBUILD COPY --from=later / /\n";
        let expected = [
            "5:29 1.dkr/busybox:1.37 amd64".to_owned(),
            format!("6:32 docker.io/library/go:1 {host}"),
            "9:13 docker.io/team/x:1.37 s390x".to_owned(),
            "10:13 docker.io/other/y:latest s390x".to_owned(),
            "14:42 ghcr.io/x/uv:0.9 s390x".to_owned(),
            "15:6 docker.io/library/busybox:latest s390x".to_owned(),
            "1:10 docker.io/docker/dockerfile:1 ".to_owned(),
        ];
        assert_eq!(references(text, &[]), expected);
        assert_eq!(references(text, &[("ACCOUNT", "22")])[0], "5:29 22.dkr/busybox:1.37 amd64");
        assert_eq!(references(text, &[("BUILDKIT_SYNTAX", "x/y")])[6], "1:10 docker.io/x/y:latest ");
        assert_eq!(
            references("FROM tools-${TARGETARCH} AS a", &[]),
            ["1:6 docker.io/library/tools-s390x:latest s390x"]
        );
        // Images that the build does not need are left out.
        assert_eq!(references("FROM a AS x\nFROM b\nFROM scratch", &[]), [""; 0]);
    }

    #[test]
    fn the_base_image_of_a_stage_is_found() {
        let text = "FROM go:1 AS build\nFROM build AS test\nFROM scratch AS empty\nCOPY --from=alpine:3 / /\n\
                    FROM Test AS again\nFROM empty";
        let base = |target| read(text, &[], target).base.map(|base| base.reference);
        assert_eq!(
            [Some("build"), Some("TEST"), Some("1"), Some("again")].map(base),
            [(); 4].map(|()| Some("go:1".to_owned()))
        );
        assert_eq!([None, Some("empty"), Some("2"), Some("absent"), Some("9")].map(base), [(); 5].map(|()| None));
    }

    #[test]
    fn unevaluable_names_are_refused() {
        for (text, message) in [
            ("FROM $X", "Dockerfile:1:6: the name of the base image is empty: `$X`"),
            (
                "FROM ${X",
                "Dockerfile:1:6: `${X` cannot be evaluated: `${X` has a modifier that is not known, or no end",
            ),
            ("FROM a b", "Dockerfile:1:1: FROM takes an image, or an image AS a name"),
            ("FROM Up", "Dockerfile:1:6: `Up` is not an image reference"),
            ("FROM --platform=$X a", "Dockerfile:1:6: FROM has no platform: `` is not a platform"),
            ("RUN a\nFROM b", "Dockerfile:1:1: `RUN` stands before the first FROM"),
        ] {
            let error = dockerfile(text).sources(&BTreeMap::new(), None, &Platform::linux("arm64")).unwrap_err();
            let line = lifecycle::Diagnostic::of(&error.into()).line();
            assert!(line.starts_with(message), "{line}");
        }
    }

    #[test]
    fn bases_are_renamed_in_place() {
        let text = "FROM \"a\":1 AS x\nFROM b\\\n  # no\nc\nRUN --mount='from=c,source=/a b',target=/x \\\n true\nCOPY --from=\"d\" / /\nFROM x\nCOPY --from=1 / /\n";
        let file = dockerfile(text);
        let sources = file.sources(&BTreeMap::new(), None, &Platform::linux("arm64")).unwrap();
        let names = sources.bases.iter().map(|base| (base, format!("local/{}", base.reference)));
        assert_eq!(
            file.with_renamed_bases(names),
            "FROM local/a:1 AS x\nFROM \\\n  # no\nlocal/bc\nRUN --mount='type=bind,from=local/c,source=/a b,target=/x' \\\n true\n\
             COPY --from=local/d / /\nFROM x\nCOPY --from=1 / /\n"
        );
    }
}
