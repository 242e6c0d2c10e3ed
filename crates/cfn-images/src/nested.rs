//! Nested templates: loading them from the checkout, and evaluating their parameters and outputs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::document::{Mark, Node};
use super::intrinsics::{Guard, Scope, StackPlace};
use super::resources::has_type;
use super::value::{Unresolved, Value};
use super::{Context, Error, FILE_LIMIT, File};
use crate::SourceLocation;

/// The maximum depth of nesting.
const DEPTH_LIMIT: usize = 5;

/// The maximum number of files of one template.
const COUNT_LIMIT: usize = 50;

const STACK_SET: &str = "AWS::CloudFormation::StackSet";

/// Resource types that nest a template, with the property that names the file.
const NESTING: [(&str, &str); 3] = [
    ("AWS::CloudFormation::Stack", "TemplateURL"),
    (STACK_SET, "TemplateURL"),
    ("AWS::Serverless::Application", "Location"),
];

/// Resource types that deploy a template of Service Catalog, which reads it from a URL.
const PRODUCTS: [&str; 2] =
    ["AWS::ServiceCatalog::CloudFormationProduct", "AWS::ServiceCatalog::CloudFormationProvisionedProduct"];

/// Returns whether a resource with these properties deploys another template.
pub(super) fn nests(kind: &str, properties: &Node) -> bool {
    let is_nesting = |(nesting, property): &(&str, &str)| *nesting == kind && properties.get(property).is_some();
    // A template that is written out in a text is not evaluated.
    let has_text = kind == STACK_SET && properties.get("TemplateBody").is_some();
    has_text || PRODUCTS.contains(&kind) || kind.starts_with("AWS::Proton::") || NESTING.iter().any(is_nesting)
}

/// Returns whether a type is a module of the account's registry.
pub(super) fn is_module(kind: &str) -> bool {
    kind.ends_with("::MODULE")
}

/// Reads a template with its nested templates.
pub(super) struct Loader<'r> {
    /// The folder that nested templates have to be in.
    root: &'r Path,
    /// The values that are known.
    given: &'r Context,
    /// The files that are being read, outermost first.
    open: Vec<PathBuf>,
    digests: Vec<String>,
}

impl<'r> Loader<'r> {
    pub(super) fn new(root: &'r Path, given: &'r Context) -> Self {
        Self { root, given, open: Vec::new(), digests: Vec::new() }
    }

    pub(super) fn load(&mut self, path: &Path, display: &Path) -> Result<File, Error> {
        self.load_file(path, display, None)
    }

    /// Reads a file with its nested templates. A parent template passes values.
    fn load_file(
        &mut self,
        path: &Path,
        display: &Path,
        passed: Option<(BTreeMap<String, Value>, StackPlace)>,
    ) -> Result<File, Error> {
        let unreadable = |source| Error::Unreadable { path: display.to_owned(), source };
        self.open.push(path.canonicalize().map_err(unreadable)?);
        let bytes = read(path, display)?;
        self.digests.push(super::hex(&Sha256::digest(&bytes)));
        let text = String::from_utf8(bytes).map_err(|_| Error::Encoding { path: display.to_owned() })?;
        let file = Arc::new(File::parse(&text, display)?);
        let guard = Guard::default();
        let scope = match passed {
            None => Scope::root(&file, self.given, &guard),
            Some((passed, stack)) => Scope::new(&file, self.given, &guard, passed, stack),
        };
        let mut all: BTreeMap<String, Arc<File>> = BTreeMap::new();
        for (name, location) in locations(&scope.file) {
            let source_location = file.source_location(location.mark);
            if let Some(relative) = location.text().filter(|location| is_local(location)) {
                let passed = (scope.passed(&name), scope.place_of(&name));
                let mut nested = self.nest(relative, path, display, source_location, passed)?;
                if let Some(known) = all.remove(relative) {
                    // Nested twice with other values, it may nest other templates.
                    nested.nested.extend(known.nested.clone());
                }
                all.insert(relative.to_owned(), Arc::new(nested));
            }
        }
        let digests = &mut self.digests;
        let digest = |bytes: &[u8]| digests.push(super::hex(&Sha256::digest(bytes)));
        let programs = super::programs::read(&scope, path, self.root, digest);
        self.open.pop();
        Ok(File { nested: all, programs, ..File::clone(&file) })
    }

    fn nest(
        &mut self,
        relative: &str,
        parent: &Path,
        shown: &Path,
        source_location: SourceLocation,
        passed: (BTreeMap<String, Value>, StackPlace),
    ) -> Result<File, Error> {
        let folder = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
        let (path, display) =
            (folder(parent).join(relative), super::image_definition::normalized(&folder(shown).join(relative)));
        let real = path.canonicalize().map_err(|source| {
            Error::hinted(
                source_location.clone(),
                format!("nested template `{relative}` could not be read: {source}"),
                "its path is relative to the template that nests it",
            )
        })?;
        let root = self.root.canonicalize().unwrap_or_else(|_| self.root.to_owned());
        if !real.starts_with(&root) {
            return Err(Error::invalid(
                source_location,
                format!("nested template `{relative}` lies outside the workspace"),
            ));
        }
        if self.open.contains(&real) {
            return Err(Error::invalid(source_location, format!("nested template `{relative}` nests itself")));
        }
        if self.open.len() > DEPTH_LIMIT || self.digests.len() >= COUNT_LIMIT {
            let message = format!("more than {DEPTH_LIMIT} levels of nested templates, or {COUNT_LIMIT} files in all");
            return Err(Error::invalid(source_location, message));
        }
        self.load_file(&path, &display, Some(passed))
    }

    /// Returns the digest of the single file, or of the list of all files' digests.
    pub(super) fn sha256(mut self) -> String {
        match self.digests.as_slice() {
            [_] => self.digests.swap_remove(0),
            digests => super::hex(&Sha256::digest(digests.join("\n"))),
        }
    }
}

fn read(path: &Path, display: &Path) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let unreadable = |source| Error::Unreadable { path: display.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_LIMIT {
        Err(Error::TooLarge { path: display.to_owned(), limit: FILE_LIMIT })
    } else {
        Ok(bytes)
    }
}

/// Returns the resources that nest a template, with the node that names the file.
fn locations(file: &File) -> Vec<(String, Arc<Node>)> {
    let resources = file.section("Resources").map(|section| section.entries()).unwrap_or_default();
    resources.iter().filter_map(|entry| Some((entry.key.clone(), location(&entry.value)?.clone()))).collect()
}

/// Returns the node that names the file of a resource that nests a template.
fn location(resource: &Node) -> Option<&Arc<Node>> {
    let kind = resource.get("Type")?.text()?;
    let (_, property) = NESTING.iter().find(|(nesting, _)| *nesting == kind)?;
    resource.get("Properties")?.get(property)
}

/// Returns the parameters of a stack, which are a mapping, or of a stack set, which are a list.
fn entries(parameters: &Node) -> Vec<(&str, &Node)> {
    let of_mapping = parameters.as_mapping().filter(|_| parameters.intrinsic().is_none());
    let of_mapping = of_mapping.map(|mapping| mapping.entries()).unwrap_or_default();
    let of_list = parameters.as_sequence().unwrap_or_default();
    let mut all: Vec<(&str, &Node)> =
        of_mapping.iter().map(|entry| (entry.key.as_str(), entry.value.as_ref())).collect();
    all.extend(
        of_list.iter().filter_map(|item| Some((item.get("ParameterKey")?.text()?, item.at(&["ParameterValue"])?))),
    );
    all
}

/// Returns whether a location is the path of a file, and neither a URL nor something that packaging replaces.
fn is_local(location: &str) -> bool {
    let is_file = [".yaml", ".yml", ".json", ".template"].iter().any(|ending| location.ends_with(ending));
    is_file && !location.contains("://") && !location.contains("${") && !location.contains("{{")
}

impl<'t> Scope<'t> {
    /// Returns the scope of a nested template. The parent passes its parameters.
    pub(super) fn nested(&self, name: &str) -> Option<Scope<'t>> {
        let file = Arc::clone(self.nested_file(name)?);
        Some(Scope::new(&file, self.context, self.guard, self.passed(name), self.place_of(name)))
    }

    /// Returns the template that a resource nests, if it was read.
    pub(super) fn nested_file(&self, name: &str) -> Option<&Arc<File>> {
        self.file.nested.get(location(self.file.declaration("Resources", name)?)?.text()?)
    }

    /// Returns where the template that a resource nests is deployed.
    fn place_of(&self, name: &str) -> StackPlace {
        match self.file.declaration("Resources", name) {
            Some(resource) if has_type(resource, STACK_SET) => StackPlace::Elsewhere,
            _ => self.place,
        }
    }

    /// Evaluates the parameters that a nested template is passed.
    fn passed(&self, name: &str) -> BTreeMap<String, Value> {
        let properties = self.file.declaration("Resources", name).and_then(|node| node.get("Properties"));
        let Some(properties) = properties else { return BTreeMap::new() };
        let mut values = BTreeMap::new();
        self.nesting.borrow_mut().push(name.to_owned());
        for (key, node) in properties.get("Parameters").map(|node| entries(node)).unwrap_or_default() {
            let value = match self.evaluate(node) {
                Value::Text(_) => Value::Text(self.text(node)),
                Value::Nothing(_) => continue,
                value => value,
            };
            values.insert(key.to_owned(), value.without_conditions());
        }
        self.nesting.borrow_mut().pop();
        let groups = properties.get("StackInstancesGroup").and_then(|groups| groups.as_sequence()).unwrap_or_default();
        for overrides in groups.iter().filter_map(|group| group.get("ParameterOverrides")) {
            for (key, node) in entries(overrides) {
                let reason = format!("`{name}` overrides the parameter `{key}` in some accounts or regions");
                values.insert(key.to_owned(), Value::Unknown(Unresolved::new(self.source_location(node), reason)));
            }
        }
        values
    }

    /// Evaluates an output of a nested template.
    pub(super) fn output(&self, name: &str, output: &str, mark: Mark) -> Result<Value, Unresolved> {
        if self.nesting.borrow().iter().any(|open| open == name) {
            let reason = format!("nested template `{name}` depends on its own outputs");
            return Err(Unresolved::mistake(self.file.source_location(mark), reason));
        }
        let depth = self.guard.depth.get();
        if depth > super::intrinsics::DEPTH_LIMIT {
            return Err(Unresolved::mistake(
                self.file.source_location(mark),
                "too many expressions, or too many inside each other",
            ));
        }
        // A scope takes more of the stack than an expression.
        self.guard.depth.set(depth + 10);
        let value = self.nested(name).map(|scope| match scope.file.declaration("Outputs", output) {
            Some(declared) => {
                declared.get("Value").map(|value| scope.evaluate(value).without_conditions()).ok_or_else(Vec::new)
            }
            None => match scope.loops.undecided_section("Outputs") {
                Some(why) => Ok(Value::Unknown(why.clone()).without_conditions()),
                None => {
                    let known = scope.file.section("Outputs").map(|section| section.entries()).unwrap_or_default();
                    Err(known.iter().map(|entry| entry.key.clone()).collect())
                }
            },
        });
        self.guard.depth.set(depth);
        match value {
            Some(Ok(value)) => Ok(value),
            Some(Err(known)) => {
                let missing = format!("nested template `{name}` has no output `{output}`");
                let hint = self.guard.names.suggestion(output, known.iter().map(String::as_str), "outputs");
                Err(Unresolved::mistake(self.file.source_location(mark), missing).hint(hint))
            }
            None => Err(Unresolved::new(
                self.file.source_location(mark),
                format!("`{name}` is not a template in the checkout"),
            )),
        }
    }
}
