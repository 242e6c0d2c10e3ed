//! Looks up what the expressions of a template need.

use std::collections::BTreeSet;

use crate::access::RegistryAccess;
use cfn_images::{Context, Need, Template};

/// The most rounds of lookups. A value can name another parameter, which then has to be looked up too.
const ROUNDS: usize = 8;

/// Looks up what a template's expressions need, and nothing else.
pub(super) async fn look_up(context: &mut Context, template: &Template, access: &RegistryAccess) -> anyhow::Result<()> {
    look_up_needs(context, |context| template.needs(context), access).await
}

/// Looks up what `needs` returns, until nothing more is found.
pub(super) async fn look_up_needs(
    context: &mut Context,
    needs: impl Fn(&Context) -> BTreeSet<Need>,
    access: &RegistryAccess,
) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        let mut progressed = false;
        for need in needs(context) {
            match need {
                Need::Ssm(name) if !context.ssm.contains_key(&name) => {
                    let value = access.aws.parameter(&name).await?;
                    // The value is not trimmed, because CloudFormation does not trim it either.
                    context.ssm.insert(name, value);
                    progressed = true;
                }
                Need::Account if context.account_id.is_none() => {
                    context.account_id = Some(access.aws.account().await?.to_owned());
                    progressed = true;
                }
                Need::Region if context.region.is_none() => {
                    context.region = access.aws.region().await;
                    progressed = context.region.is_some();
                }
                _ => {}
            }
        }
        if !progressed {
            break;
        }
    }
    Ok(())
}
