//! Reads CloudFormation's resource schemas, as cfn-lint ships them: one JSON file for each version of a resource type.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// A property whose value is a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StringProperty {
    /// The path from `Properties` to the object that has the property. `*` stands for each item of a list, or each
    /// value of a map.
    pub(super) path: Vec<String>,
    pub(super) name: String,
    /// The names of all properties of the object.
    pub(super) siblings: Vec<String>,
}

/// Decides by the name and the description of a property.
type Filter = fn(&str, &str) -> bool;

/// Returns the string properties that a template can set and that `is_meant` accepts, by resource type. Read-only
/// properties are left out.
///
/// # Errors
/// If a file cannot be read or is no schema.
pub(super) fn read(folder: &Path, is_meant: Filter) -> anyhow::Result<BTreeMap<String, Vec<StringProperty>>> {
    let mut types: BTreeMap<String, Vec<StringProperty>> = BTreeMap::new();
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let schema: Value = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let Some(name) = schema["typeName"].as_str() else { continue };
        let of_type = types.entry(name.to_owned()).or_default();
        for property in Walk::over(&schema, is_meant) {
            let is_same = |known: &StringProperty| (&known.path, &known.name) == (&property.path, &property.name);
            if !of_type.iter().any(is_same) {
                of_type.push(property);
            }
        }
    }
    for properties in types.values_mut() {
        properties.sort_by(|a, b| (&a.path, &a.name).cmp(&(&b.path, &b.name)));
    }
    Ok(types)
}

/// A walk over the properties of a schema.
struct Walk<'s> {
    schema: &'s Value,
    read_only: Vec<&'s str>,
    is_meant: Filter,
    /// The definitions that are being walked, so that a recursive one ends.
    open: Vec<&'s str>,
    found: Vec<StringProperty>,
}

impl<'s> Walk<'s> {
    fn over(schema: &'s Value, is_meant: Filter) -> Vec<StringProperty> {
        let read_only = schema["readOnlyProperties"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut walk = Self { schema, read_only: read_only.collect(), is_meant, open: Vec::new(), found: Vec::new() };
        walk.object(schema, &mut Vec::new());
        walk.found
    }

    /// Walks the properties of an object, the items of a list, or the values of a map.
    fn object(&mut self, node: &'s Value, path: &mut Vec<String>) {
        for key in ["allOf", "anyOf", "oneOf"] {
            node[key].as_array().into_iter().flatten().for_each(|part| self.object(part, path));
        }
        let properties = node["properties"].as_object();
        let siblings: Vec<String> = properties.into_iter().flatten().map(|(name, _)| name.clone()).collect();
        for (name, value) in properties.into_iter().flatten() {
            self.value(name, value, path, &siblings);
        }
        let maps = node["patternProperties"].as_object().into_iter().flat_map(|map| map.values());
        for value in [&node["items"], &node["additionalProperties"]].into_iter().chain(maps) {
            if value.is_object() {
                self.value("*", value, path, &[]);
            }
        }
    }

    fn value(&mut self, name: &str, node: &'s Value, path: &mut Vec<String>, siblings: &[String]) {
        let pointer = format!("/properties/{}", [path.as_slice(), &[name.to_owned()]].concat().join("/"));
        if self.read_only.contains(&pointer.as_str()) {
            return;
        }
        let depth = self.open.len();
        let mut target = node;
        while let Some(reference) = target["$ref"].as_str() {
            let definition = self.schema.pointer(reference.trim_start_matches('#'));
            let Some(definition) = definition.filter(|_| !self.open.contains(&reference)) else {
                self.open.truncate(depth);
                return;
            };
            self.open.push(reference);
            target = definition;
        }
        let description = [node, target].iter().find_map(|node| node["description"].as_str());
        if is_string(target) && (self.is_meant)(name, description.unwrap_or_default()) {
            self.found.push(StringProperty { path: path.clone(), name: name.to_owned(), siblings: siblings.to_vec() });
        }
        path.push(name.to_owned());
        self.object(target, path);
        path.pop();
        self.open.truncate(depth);
    }
}

fn is_string(node: &Value) -> bool {
    let is_string = |kind: &Value| kind.as_str() == Some("string");
    is_string(&node["type"]) || node["type"].as_array().is_some_and(|kinds| kinds.iter().any(is_string))
}
