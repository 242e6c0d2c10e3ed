//! Parses the input `cache`.

use lifecycle::naming::Project;
use runner_protocol::{Input, InputError, Variables};

use crate::request::{Cache, CacheLocation, Caches, IMAGE};

/// The accepted locations of caches.
const KINDS: &str = "none, gha, registry:REFERENCE or local:FOLDER";

/// The options of a cache.
const OPTIONS: &str = "the options are mode=min|max and ignore-error=true|false for a cache that is written, and \
                       scope=NAME for gha";

/// Whether a cache is read, written or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Both,
    From,
    To,
}

/// Parses the input. Paths of folders are absolute or relative to the working directory.
///
/// # Errors
/// If a line is malformed, or GitHub's cache service is not available.
pub(super) fn parse(input: &Input<'_>, variables: &Variables, project: &Project) -> Result<Caches, InputError> {
    let mut caches = Caches::default();
    let lines: Vec<&str> = input.lines().collect();
    if lines == ["none"] {
        return Ok(caches);
    }
    for line in lines {
        let (direction, text) = match (line.strip_prefix("from="), line.strip_prefix("to=")) {
            (Some(text), _) => (Direction::From, text),
            (_, Some(text)) => (Direction::To, text),
            (None, None) => (Direction::Both, line),
        };
        let cache = parse_cache(text, line, direction, input, project)?;
        if let CacheLocation::GitHub(_) = cache.location {
            require_service(input, variables)?;
        }
        if direction != Direction::To {
            caches.from.push(cache.clone());
        }
        if direction != Direction::From {
            caches.to.push(cache);
        }
    }
    Ok(caches)
}

fn parse_cache(
    text: &str,
    line: &str,
    direction: Direction,
    input: &Input<'_>,
    project: &Project,
) -> Result<Cache, InputError> {
    let refused = |why: &str| input.refuse_value(line, why);
    let mut words = text.split(',').map(str::trim);
    let first = words.next().unwrap_or_default();
    let mut cache = match first.split_once(':') {
        None if first == "gha" => with_defaults(CacheLocation::GitHub(None)),
        Some(("registry", reference)) if is_reference(reference) => {
            with_defaults(CacheLocation::Registry(reference.to_owned()))
        }
        Some(("local", path)) if !path.is_empty() => {
            with_defaults(CacheLocation::Local(project.inside(path).map_err(|error| input.refuse_value(line, error))?))
        }
        _ => return Err(refused(KINDS)),
    };
    for word in words {
        let (name, value) = word.split_once('=').ok_or_else(|| refused(OPTIONS))?;
        match (name, value, &mut cache.location) {
            ("mode" | "ignore-error", ..) if direction == Direction::From => {
                return Err(refused(&format!(
                    "`{name}` applies to caches that are written, but this one is only read"
                )));
            }
            ("mode", "max", _) => cache.all_steps = true,
            ("mode", "min", _) => cache.all_steps = false,
            ("ignore-error", "true", _) => cache.ignore_error = true,
            ("ignore-error", "false", _) => cache.ignore_error = false,
            ("scope", name, CacheLocation::GitHub(scope)) if !name.is_empty() => *scope = Some(name.to_owned()),
            _ => return Err(refused(OPTIONS)),
        }
    }
    Ok(cache)
}

fn with_defaults(location: CacheLocation) -> Cache {
    Cache { location, all_steps: true, ignore_error: false }
}

/// Whether a reference can be part of a comma-separated value.
fn is_reference(text: &str) -> bool {
    let text = text.replace(IMAGE, "image");
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte))
}

fn require_service(input: &Input<'_>, variables: &Variables) -> Result<(), InputError> {
    let given = ["ACTIONS_RUNTIME_TOKEN", "ACTIONS_RESULTS_URL"].iter().all(|name| variables.get(name).is_some());
    if given {
        return Ok(());
    }
    Err(input.refuse(
        "`gha` needs ACTIONS_RUNTIME_TOKEN and ACTIONS_RESULTS_URL, which a composite step does not have: \
         add the step `- uses: actions/github-script@ed597411d8f924073f98dfc5c65a23a2325f34cd # v8.0.0` before this one, \
         with the `script` `for (const n of ['ACTIONS_RUNTIME_TOKEN', 'ACTIONS_RESULTS_URL']) core.exportVariable(n, process.env[n])`",
    ))
}
