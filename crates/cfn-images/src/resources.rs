//! Values of the template's own resources, if they follow from the template.

use super::document::{Mark, Node};
use super::intrinsics::Scope;
use super::traced_text::TracedText;
use super::value::{Origin, Part, Text, Unresolved, Value};

const REPOSITORY: &str = "AWS::ECR::Repository";

/// The property with a repository's name.
const REPOSITORY_NAME: &str = "RepositoryName";

impl Scope<'_> {
    /// Evaluates `Ref` of a resource. Only the name of an ECR repository is known.
    pub(super) fn resource_id(&self, name: &str, mark: Mark) -> Result<Value, Unresolved> {
        let resource = self.file.declaration("Resources", name);
        match resource.filter(|resource| has_type(resource, REPOSITORY)) {
            Some(resource) => Ok(Value::Text(self.repository_name(name, resource, mark))),
            None => Ok(self.made_by_deployment(name, "Ref", mark)),
        }
    }

    /// Evaluates `Fn::GetAtt`.
    pub(super) fn attribute(&self, name: &str, attribute: &str, mark: Mark) -> Result<Value, Unresolved> {
        let Some(resource) = self.file.declaration("Resources", name) else {
            if let Some(why) = self.loops.undecided_section("Resources") {
                return Err(why.clone());
            }
            let known = self.file.section("Resources").map(|section| section.entries()).unwrap_or_default();
            let unknown =
                Unresolved::mistake(self.file.source_location(mark), format!("the template has no resource `{name}`"));
            return Err(unknown.hint(self.guard.names.suggestion(
                name,
                known.iter().map(|entry| entry.key.as_str()),
                "resources",
            )));
        };
        if let (Some(output), true) = (attribute.strip_prefix("Outputs."), self.nested_file(name).is_some()) {
            return self.output(name, output, mark);
        }
        match (resource.get("Type").and_then(|kind| kind.text()), attribute) {
            (Some(REPOSITORY), "RepositoryUri") => {
                let mut text = self.own_registry(mark);
                text.append(self.repository_name(name, resource, mark));
                Ok(Value::Text(text))
            }
            (Some(REPOSITORY), "Arn") => {
                let source_location = || self.file.source_location(mark);
                let mut text = Text::default();
                let known =
                    |value: Result<String, Unresolved>| Part { text: value.map(TracedText::from), origin: None };
                text.push_str("arn:");
                text.push(known(self.partition(source_location)));
                text.push_str(":ecr:");
                text.push(known(self.region(source_location)));
                text.push_str(":");
                text.push(known(self.account(source_location)));
                text.push_str(":repository/");
                text.append(self.repository_name(name, resource, mark));
                Ok(Value::Text(text))
            }
            (Some("AWS::SSM::Parameter"), "Value") => match resource.at(&["Properties", "Value"]) {
                Some(value) => Ok(self.evaluate(value)),
                None => Ok(self.made_by_deployment(name, attribute, mark)),
            },
            _ => Ok(self.made_by_deployment(name, attribute, mark)),
        }
    }

    /// Returns the account's own registry in the region, with a `/` after it.
    pub(super) fn own_registry(&self, mark: Mark) -> Text {
        let source_location = || self.file.source_location(mark);
        let mut text = Text::default();
        let mut push = |value: Result<String, Unresolved>| {
            text.push(Part { text: value.map(TracedText::from), origin: None });
        };
        push(self.account(source_location));
        push(Ok(".dkr.ecr.".to_owned()));
        push(self.region(source_location));
        push(Ok(".".to_owned()));
        push(self.pseudo("AWS::URLSuffix", mark).and_then(|suffix| suffix.into_known(source_location)));
        push(Ok("/".to_owned()));
        text
    }

    /// Returns whether a resource is an ECR repository.
    pub(super) fn is_repository(&self, name: &str) -> bool {
        self.file.declaration("Resources", name).is_some_and(|resource| has_type(resource, REPOSITORY))
    }

    fn made_by_deployment(&self, name: &str, attribute: &str, mark: Mark) -> Value {
        let reason = match attribute {
            "Ref" => format!("what `{name}` will be called is known only when deployed"),
            _ => format!("`{name}.{attribute}` is known only when deployed"),
        };
        let part = Part {
            text: Err(Unresolved::new(self.file.source_location(mark), reason)),
            origin: Some(Origin::Attribute(format!("{name}.{attribute}"))),
        };
        Value::Text(Text::of(part.text, part.origin))
    }

    fn repository_name(&self, name: &str, resource: &Node, mark: Mark) -> Text {
        match resource.at(&["Properties", REPOSITORY_NAME]) {
            Some(node) => self.text(node),
            None => {
                let reason = format!("repository `{name}` has no `RepositoryName`, so its name is made when deployed");
                Text::of(
                    Err(Unresolved::new(self.file.source_location(mark), reason)),
                    Some(Origin::Attribute(format!("{name}.{REPOSITORY_NAME}"))),
                )
            }
        }
    }
}

/// Returns whether a part of a text is the name of a repository of the template that gets its name when it is deployed.
pub(super) fn is_unnamed_repository(part: &Part) -> bool {
    let is_name = |origin: &Origin| match origin {
        Origin::Attribute(attribute) => attribute.rsplit('.').next() == Some(REPOSITORY_NAME),
        _ => false,
    };
    part.text.is_err() && part.origin.as_ref().is_some_and(is_name)
}

pub(super) fn has_type(resource: &Node, kind: &str) -> bool {
    resource.get("Type").and_then(|kind| kind.text()) == Some(kind)
}
