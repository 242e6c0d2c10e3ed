//! SSM Parameter Store: `GetParameter` and `GetParameters`.

use serde_json::{Value, json};

use crate::{
    action::{Action, Answer, Exception},
    config::Parameter,
    iam,
    state::State,
};

const MODIFIED: f64 = 1_700_000_000.0; // seconds since the epoch; the API always returns a date

pub(crate) fn answer(state: &mut State, action: &Action<'_>) -> Answer {
    match action.name {
        "GetParameter" => {
            let name = action.text("Name").ok_or_else(|| Exception::new("ValidationException", "Name is missing"))?;
            match find(state, action, name)? {
                Some(parameter) => Ok(json!({"Parameter": describe(parameter, name, action)})),
                None => Err(Exception::new("ParameterNotFound", "")),
            }
        }
        "GetParameters" => {
            let names: Vec<&str> =
                action.input["Names"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            if names.is_empty() || names.len() > 10 {
                return Err(Exception::new("ValidationException", "Names needs 1 to 10 names"));
            }
            let (mut found, mut invalid) = (Vec::new(), Vec::new());
            for name in names {
                match find(state, action, name)? {
                    Some(parameter) => found.push(describe(parameter, name, action)),
                    None => invalid.push(name),
                }
            }
            Ok(json!({"Parameters": found, "InvalidParameters": invalid}))
        }
        name => Err(Exception::new("UnknownOperationException", name)),
    }
}

/// Finds a parameter by its name or ARN. Fails if the caller may not read it.
fn find<'a>(state: &'a State, action: &Action<'_>, wanted: &str) -> Result<Option<&'a Parameter>, Exception> {
    let (account, name) = match wanted.strip_prefix("arn:") {
        Some(arn) => {
            let name = arn.split_once(":parameter").map_or("", |(_, name)| name);
            (arn.split(':').nth(3).unwrap_or_default(), name)
        }
        None => (action.principal.account.as_str(), wanted),
    };
    let resource = format!(
        "arn:{}:ssm:{}:{account}:parameter/{}",
        iam::partition(action.region),
        action.region,
        name.trim_start_matches('/')
    );
    iam::identity(action.principal, &format!("ssm:{}", action.name), &resource).map_err(Exception::denied)?;
    let parameter = state
        .parameters
        .iter()
        .find(|parameter| parameter.account == account && parameter.region == action.region && parameter.name == name);
    if parameter.is_some_and(|parameter| parameter.kind == "SecureString")
        && action.input["WithDecryption"].as_bool() == Some(true)
    {
        let key = format!("arn:{}:kms:{}:{account}:key/default", iam::partition(action.region), action.region);
        iam::identity(action.principal, "kms:Decrypt", &key).map_err(Exception::denied)?;
    }
    Ok(parameter)
}

fn describe(parameter: &Parameter, name: &str, action: &Action<'_>) -> Value {
    let hidden = parameter.kind == "SecureString" && action.input["WithDecryption"].as_bool() != Some(true);
    let value = if hidden { "AQICAHciphertext==" } else { &parameter.value };
    json!({"Name": name, "Type": parameter.kind, "Value": value, "Version": 1, "DataType": "text",
           "LastModifiedDate": MODIFIED})
}
