//! The images that a Dockerfile names, for one platform.

use std::collections::{BTreeMap, BTreeSet};

use lifecycle::{ActionError, SourceLocation};
use oci::Platform;

use super::Dockerfile;
use super::substitutions::canonical;
use super::syntax::{Flag, Instruction, Piece, quoted_words};
use super::words::{Variables, expand};

/// The build argument that names the frontend in the place of the directive `syntax`.
pub(crate) const SYNTAX_ARGUMENT: &str = "BUILDKIT_SYNTAX";

/// What a Dockerfile is built from, for one platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    /// Each place that names an image and that the build needs.
    pub(crate) bases: Vec<Base>,
    /// What the last stage stands on in the end; none where it is made out of nothing.
    pub(crate) base: Option<Base>,
    /// Which stages the build needs, by their number.
    pub(crate) needed: BTreeSet<usize>,
    /// The stages that the last one is made of: each stands on the one before.
    pub(crate) chain: Vec<usize>,
}

/// An image that a Dockerfile names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    /// The reference, with its arguments filled in.
    pub(crate) reference: String,
    /// The same with registry and tag: `docker.io/library/busybox:latest`.
    pub(crate) name: String,
    /// Where it is named.
    pub(crate) place: SourceLocation,
    /// What it is named for.
    pub(crate) role: Role,
    /// The platform that it has to be of; none for a frontend, which the builder chooses for itself.
    pub(crate) platform: Option<Platform>,
    /// How it is written.
    pub(super) written: Piece,
    /// The options of the mount that it stands in.
    pub(super) mount: Option<Vec<(String, Option<String>)>>,
}

impl Base {
    /// The same place with another image in it.
    pub(crate) fn replaced_by(self, image: &str) -> Self {
        let name = canonical(image).unwrap_or_else(|| image.to_owned());
        Self { reference: image.to_owned(), name, ..self }
    }
}

/// What an image is named for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// A stage stands on it: `FROM`.
    Stage,
    /// Files of it are copied or mounted: `COPY --from`, `RUN --mount=from=`.
    Files,
    /// It reads the Dockerfile: `# syntax=`.
    Frontend,
}

/// A stage as far as it matters here.
struct Stage {
    /// In lower case.
    name: Option<String>,
    parent: Parent,
    /// Earlier stages whose files it takes.
    takes: BTreeSet<usize>,
    variables: Variables,
    /// Images whose files it takes.
    images: Vec<Base>,
}

enum Parent {
    Nothing,
    Stage(usize),
    Image(Box<Base>),
}

impl Dockerfile {
    /// The images that a build for a platform needs.
    ///
    /// # Errors
    /// When a name can't be evaluated.
    pub(crate) fn sources(
        &self,
        arguments: &BTreeMap<String, String>,
        target: Option<&str>,
        platform: &Platform,
    ) -> Result<Sources, ActionError> {
        let mut reading = Reading::of(self, arguments, platform);
        for instruction in self.instructions() {
            reading.take(instruction)?;
        }
        let mut sources = reading.sources(target);
        sources.bases.extend(self.frontend(arguments)?);
        Ok(sources)
    }

    /// The image that reads the Dockerfile, where one is named.
    fn frontend(&self, arguments: &BTreeMap<String, String>) -> Result<Option<Base>, ActionError> {
        let directive = self.document.syntax.as_ref();
        let argument = arguments.get(SYNTAX_ARGUMENT).and_then(|value| value.split_whitespace().next());
        let image = argument.map(str::to_owned).or_else(|| Some(directive?.image.clone()));
        let Some(reference) = image else { return Ok(None) };
        let place = self.place(directive.map_or(0, |directive| directive.offset));
        let name = named(&reference, &place)?;
        let written = Piece::default();
        Ok(Some(Base { reference, name, place, role: Role::Frontend, platform: None, written, mount: None }))
    }
}

/// The evaluation of a Dockerfile, instruction by instruction.
struct Reading<'d> {
    dockerfile: &'d Dockerfile,
    arguments: &'d BTreeMap<String, String>,
    platform: &'d Platform,
    /// What `ARG`s before the first `FROM` and the builder itself give values to.
    globals: Variables,
    /// What the builder itself gives values to.
    predefined: Variables,
    stages: Vec<Stage>,
}

impl<'d> Reading<'d> {
    fn of(dockerfile: &'d Dockerfile, arguments: &'d BTreeMap<String, String>, platform: &'d Platform) -> Self {
        let mut predefined = Variables::new();
        for (kind, platform) in [("BUILD", &Platform::host()), ("TARGET", platform)] {
            predefined.insert(format!("{kind}PLATFORM"), platform.to_string());
            predefined.insert(format!("{kind}OS"), platform.os.clone());
            predefined.insert(format!("{kind}ARCH"), platform.architecture.clone());
            predefined.insert(format!("{kind}VARIANT"), platform.variant.clone().unwrap_or_default());
        }
        let globals = predefined.clone();
        Self { dockerfile, arguments, platform, globals, predefined, stages: Vec::new() }
    }

    fn take(&mut self, instruction: &Instruction) -> Result<(), ActionError> {
        match instruction.keyword {
            "FROM" => self.from(instruction),
            "ARG" => self.arg(instruction),
            _ if self.stages.is_empty() => {
                let place = self.dockerfile.place(instruction.offset);
                let message = format!("`{}` stands before the first FROM", instruction.keyword);
                Err(ActionError::usage_error(message).at(place))
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
                // A default that can't be evaluated is the builder's to refuse, unless an image's name needs it.
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
        // All values of one instruction see what was there before it.
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
        let at = |offset: usize| self.dockerfile.place(offset);
        let (written, name) = match words.as_slice() {
            [image] => (image, None),
            [image, by, name] if by.text.eq_ignore_ascii_case("as") => (image, Some(name.text.to_ascii_lowercase())),
            _ => {
                return Err(
                    ActionError::usage_error("FROM takes an image, or an image AS a name").at(at(instruction.offset))
                );
            }
        };
        let place = at(written.span().map_or(instruction.offset, |span| span.start));
        let reference = self.expanded(&written.text, &self.globals, &place)?;
        if reference.is_empty() {
            let problem = ActionError::usage_error(format!("the name of the base image is empty: `{}`", written.text));
            return Err(problem.at(place).hint("give the build argument a default, or a value in `buildArgs`"));
        }
        let platform = match instruction.options.iter().find(|option| option.name == "platform") {
            None => self.platform.clone(),
            Some(option) => {
                let value = self.expanded(&option.written.text, &self.globals, &at(option.offset))?;
                let place = at(option.offset);
                let platform = value.parse::<Platform>();
                platform.map_err(|error| ActionError::usage_error("FROM has no platform").because(error).at(place))?
            }
        };
        let (parent, variables) = match self.stage_named(&reference) {
            Some(number) => (Parent::Stage(number), self.stages[number].variables.clone()),
            None if reference == "scratch" => (Parent::Nothing, Variables::new()),
            None => {
                let base = self.base(reference, place, Role::Stage, platform, written.clone(), None)?;
                (Parent::Image(Box::new(base)), Variables::new())
            }
        };
        self.stages.push(Stage { name, parent, takes: BTreeSet::new(), variables, images: Vec::new() });
        Ok(())
    }

    fn copy(&mut self, instruction: &Instruction) -> Result<(), ActionError> {
        match instruction.options.iter().find(|option| option.name == "from" && !option.value.is_empty()) {
            Some(option) => self.takes(option, &option.written.text, None),
            None => Ok(()),
        }
    }

    fn run(&mut self, instruction: &Instruction) -> Result<(), ActionError> {
        for option in instruction.options.iter().filter(|option| option.name == "mount") {
            let options = mount(&option.value);
            let from = options.iter().find(|(name, _)| name == "from").and_then(|(_, value)| value.clone());
            if let Some(from) = from.filter(|from| !from.is_empty()) {
                self.takes(option, &from, Some(options))?;
            }
        }
        Ok(())
    }

    /// Takes in that files come from a stage or an image.
    fn takes(
        &mut self,
        option: &Flag,
        from: &str,
        mount: Option<Vec<(String, Option<String>)>>,
    ) -> Result<(), ActionError> {
        let span = option.written.span();
        let place = self.dockerfile.place(span.map_or(option.offset, |span| span.start));
        let Some(current) = self.stages.len().checked_sub(1) else { return Ok(()) };
        let from = self.expanded(from, &self.stages[current].variables, &place)?;
        let number = from.parse::<usize>().ok().or_else(|| self.stage_named(&from));
        match number {
            Some(number) => {
                self.stages[current].takes.insert(number);
            }
            None if from == "scratch" => {}
            None => {
                // An image that is only copied from is of the target's platform, whatever that of the stage is.
                let platform = self.platform.clone();
                let base = self.base(from, place, Role::Files, platform, option.written.clone(), mount)?;
                self.stages[current].images.push(base);
            }
        }
        Ok(())
    }

    fn base(
        &self,
        reference: String,
        place: SourceLocation,
        role: Role,
        platform: Platform,
        written: Piece,
        mount: Option<Vec<(String, Option<String>)>>,
    ) -> Result<Base, ActionError> {
        let name = named(&reference, &place)?;
        Ok(Base { reference, name, place, role, platform: Some(platform), written, mount })
    }

    fn expanded(&self, word: &str, variables: &Variables, place: &SourceLocation) -> Result<String, ActionError> {
        expand(word, self.dockerfile.document.escape, variables).map_err(|error| {
            ActionError::usage_error(format!("`{word}` can't be evaluated")).because(error).at(place.clone())
        })
    }

    /// The last stage of a name.
    fn stage_named(&self, name: &str) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        self.stages.iter().rposition(|stage| stage.name.as_deref() == Some(&name))
    }

    /// What the target needs.
    fn sources(self, target: Option<&str>) -> Sources {
        let number =
            |name: &str| self.stage_named(name).or_else(|| name.parse().ok().filter(|n| *n < self.stages.len()));
        let last = self.stages.len().checked_sub(1);
        // A target that is not there is the builder's to refuse: all stages count.
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
                waiting.extend(&stage.takes);
                if let Parent::Stage(parent) = stage.parent {
                    waiting.push(parent);
                }
            }
        }
        for number in &sources.needed {
            let stage = &self.stages[*number];
            if let Parent::Image(base) = &stage.parent {
                sources.bases.push(Base::clone(base));
            }
            sources.bases.extend(stage.images.iter().cloned());
        }
        let mut next = first;
        while let Some(number) = next {
            sources.chain.insert(0, number);
            next = match &self.stages[number].parent {
                Parent::Stage(parent) => Some(*parent),
                Parent::Image(base) => {
                    sources.base = Some(Base::clone(base));
                    None
                }
                Parent::Nothing => None,
            };
        }
        sources
    }
}

fn named(reference: &str, place: &SourceLocation) -> Result<String, ActionError> {
    canonical(reference).ok_or_else(|| {
        let shown: String = reference.chars().take(200).collect();
        ActionError::usage_error(format!("`{shown}` is no reference of an image")).at(place.clone())
    })
}

/// The options of a mount: a line of CSV.
pub(crate) fn mount(value: &str) -> Vec<(String, Option<String>)> {
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

/// The options of a mount as they are written, with another image and always with a type: old versions of buildah read
/// none as one.
pub(super) fn with_from(options: &[(String, Option<String>)], image: Option<&str>) -> String {
    let kind = ("type".to_owned(), Some("bind".to_owned()));
    let kind = (!options.iter().any(|(name, _)| name == "type")).then_some(&kind);
    let options = kind.into_iter().chain(options);
    let field = |(name, value): &(String, Option<String>)| match (value, image) {
        (_, Some(image)) if name == "from" => format!("from={image}"),
        (Some(value), _) => format!("{name}={value}"),
        (None, _) => name.clone(),
    };
    let csv: Vec<String> = options
        .map(field)
        .map(|field| match field.contains(',') {
            true => format!("\"{field}\""),
            false => field,
        })
        .collect();
    let csv = csv.join(",");
    match csv.contains([' ', '\t', '"', '\'']) {
        // Within quotes, the only characters that mean something are the quote and the escape.
        true => format!("'{csv}'"),
        false => csv,
    }
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
        let shown = |base: Base| {
            let platform = base.platform.map(|platform| platform.architecture).unwrap_or_default();
            format!("{} {} {platform}", base.place.to_string().trim_start_matches("Dockerfile:"), base.name)
        };
        read(text, args, None).bases.into_iter().map(shown).collect()
    }

    #[test]
    fn every_place_that_names_an_image() {
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
        // What the build does not need is nobody's base.
        assert_eq!(references("FROM a AS x\nFROM b\nFROM scratch", &[]), [""; 0]);
    }

    #[test]
    fn what_a_stage_stands_on() {
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
    fn what_cannot_be_evaluated_is_refused() {
        for (text, message) in [
            ("FROM $X", "Dockerfile:1:6: the name of the base image is empty: `$X`"),
            ("FROM ${X", "Dockerfile:1:6: `${X` can't be evaluated: `${X` has a modifier that is not known, or no end"),
            ("FROM a b", "Dockerfile:1:1: FROM takes an image, or an image AS a name"),
            ("FROM Up", "Dockerfile:1:6: `Up` is no reference of an image"),
            ("FROM --platform=$X a", "Dockerfile:1:6: FROM has no platform: `` is not a platform"),
            ("RUN a\nFROM b", "Dockerfile:1:1: `RUN` stands before the first FROM"),
        ] {
            let error = dockerfile(text).sources(&BTreeMap::new(), None, &Platform::linux("arm64")).unwrap_err();
            let line = lifecycle::Diagnostic::of(&error.into()).line();
            assert!(line.starts_with(message), "{line}");
        }
    }

    #[test]
    fn names_are_exchanged_where_they_stand() {
        let text = "FROM \"a\":1 AS x\nFROM b\\\n  # no\nc\nRUN --mount='from=c,source=/a b',target=/x \\\n true\nCOPY --from=\"d\" / /\nFROM x\nCOPY --from=1 / /\n";
        let file = dockerfile(text);
        let sources = file.sources(&BTreeMap::new(), None, &Platform::linux("arm64")).unwrap();
        let names = sources.bases.iter().map(|base| (base, format!("local/{}", base.reference)));
        assert_eq!(
            file.renamed(names),
            "FROM local/a:1 AS x\nFROM \\\n  # no\nlocal/bc\nRUN --mount='type=bind,from=local/c,source=/a b,target=/x' \\\n true\n\
             COPY --from=local/d / /\nFROM x\nCOPY --from=1 / /\n"
        );
    }
}
