//! `/_matrix/client/v3/pushrules/…`

use ruma::api::client::push::{
    delete_pushrule::v3 as delete_pushrule, get_pushrule::v3 as get_pushrule,
    get_pushrule_actions::v3 as get_pushrule_actions, get_pushrule_enabled::v3 as get_pushrule_enabled,
    get_pushrules_all::v3 as get_pushrules_all, get_pushrules_global_scope::v3 as get_pushrules_global,
    set_pushrule::v3 as set_pushrule, set_pushrule_actions::v3 as set_pushrule_actions,
    set_pushrule_enabled::v3 as set_pushrule_enabled,
};
use services::Services;

use crate::routes::call::{Call, Reply};

/// `GET /`: all rules.
///
/// Spec: Client-Server API, "Push Rules: API".
pub async fn get(services: Services, call: Call<get_pushrules_all::Request>) -> Reply<get_pushrules_all::Response> {
    Ok(get_pushrules_all::Response::new(services.push.rules(&call.caller).await?))
}

/// `GET /global/`: all rules of the one scope there is.
pub async fn get_global(
    services: Services,
    call: Call<get_pushrules_global::Request>,
) -> Reply<get_pushrules_global::Response> {
    Ok(get_pushrules_global::Response::new(services.push.rules(&call.caller).await?))
}

/// `GET /global/{kind}/{ruleId}`: one rule.
pub async fn get_rule(services: Services, call: Call<get_pushrule::Request>) -> Reply<get_pushrule::Response> {
    let rule = services.push.rule(&call.caller, call.request.kind, &call.request.rule_id).await?;
    Ok(get_pushrule::Response::new(rule.into()))
}

/// `PUT /global/{kind}/{ruleId}`: set a rule of the caller's own.
pub async fn put(services: Services, call: Call<set_pushrule::Request>) -> Reply<set_pushrule::Response> {
    let Call { caller, request, .. } = call;
    services.push.put_rule(&caller, request.rule, request.after.as_deref(), request.before.as_deref()).await?;
    Ok(set_pushrule::Response::new())
}

/// `DELETE /global/{kind}/{ruleId}`: remove a rule of the caller's own.
pub async fn delete(services: Services, call: Call<delete_pushrule::Request>) -> Reply<delete_pushrule::Response> {
    services.push.delete_rule(&call.caller, call.request.kind, &call.request.rule_id).await?;
    Ok(delete_pushrule::Response::new())
}

/// `GET /global/{kind}/{ruleId}/actions`: what a rule does.
pub async fn get_actions(
    services: Services,
    call: Call<get_pushrule_actions::Request>,
) -> Reply<get_pushrule_actions::Response> {
    let rule = services.push.rule(&call.caller, call.request.kind, &call.request.rule_id).await?;
    Ok(get_pushrule_actions::Response::new(rule.actions().to_vec()))
}

/// `PUT /global/{kind}/{ruleId}/actions`: say what a rule does.
pub async fn put_actions(
    services: Services,
    call: Call<set_pushrule_actions::Request>,
) -> Reply<set_pushrule_actions::Response> {
    let Call { caller, request, .. } = call;
    services.push.set_actions(&caller, request.kind, &request.rule_id, request.actions).await?;
    Ok(set_pushrule_actions::Response::new())
}

/// `GET /global/{kind}/{ruleId}/enabled`: whether a rule is on.
pub async fn get_enabled(
    services: Services,
    call: Call<get_pushrule_enabled::Request>,
) -> Reply<get_pushrule_enabled::Response> {
    let rule = services.push.rule(&call.caller, call.request.kind, &call.request.rule_id).await?;
    Ok(get_pushrule_enabled::Response::new(rule.enabled()))
}

/// `PUT /global/{kind}/{ruleId}/enabled`: switch a rule on or off.
pub async fn put_enabled(
    services: Services,
    call: Call<set_pushrule_enabled::Request>,
) -> Reply<set_pushrule_enabled::Response> {
    let Call { caller, request, .. } = call;
    services.push.set_enabled(&caller, request.kind, &request.rule_id, request.enabled).await?;
    Ok(set_pushrule_enabled::Response::new())
}
